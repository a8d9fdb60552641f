"""Bounded numbers on the real line."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskedflow.tables import Bounds, BoundsTransform, Layout, column_maps
from oracles import autograd_ladjs, check_inverse_pair

LOW = torch.tensor([0.0, 2.0, -math.inf, -math.inf], dtype=torch.float64)
HIGH = torch.tensor([math.inf, 5.0, -1.0, math.inf], dtype=torch.float64)


def inside(share: Tensor) -> Tensor:
    """Numbers within the bounds, from numbers in (0, 1)."""
    odds = share / (1 - share)
    return torch.stack(
        [odds[..., 0], 2 + 3 * share[..., 1], -1 - odds[..., 2], odds[..., 3].log()], dim=-1
    )


@given(st.integers(0, 99))
def test_it_is_a_bijection_onto_the_real_line(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    share = 0.01 + 0.98 * torch.rand(3, 5, 4, dtype=torch.float64, generator=generator)
    x = inside(share)
    f = Bounds(LOW, HIGH)()
    check_inverse_pair(f, x, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(f.call_and_ladj(x[0])[1], autograd_ladjs(f, x[0]))
    assert (f(x + 1e-3) > f(x)).all()
    # the known distributions: of a uniform share the logit is logistic
    torch.testing.assert_close(f(x)[..., 0], share[..., 0].logit())
    torch.testing.assert_close(f(x)[..., 1], share[..., 1].logit())
    torch.testing.assert_close(f(x)[..., 2], -share[..., 2].logit())
    assert torch.equal(f(x)[..., 3], x[..., 3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_drawn_never_leaves_the_bounds(dtype: torch.dtype) -> None:
    low, high = LOW.to(dtype), HIGH.to(dtype)
    f = BoundsTransform(low, high)
    y = torch.tensor([-1e30, -1e6, -800.0, -20.0, 20.0, 800.0, 1e6, 1e30], dtype=dtype)[:, None]
    x, ladj = f.inv.call_and_ladj(y.expand(-1, 4))
    assert x.dtype == dtype
    assert x.isfinite().all()
    assert (x > low).all()
    assert (x < high).all()
    assert not ladj.isnan().any()
    assert f.call_and_ladj(x)[0].isfinite().all()


def test_outside_there_is_no_density_and_gradients_are_numbers() -> None:
    f = BoundsTransform(LOW, HIGH)
    x = torch.tensor(
        [[0.0, 2.0, -1.0, 0.0], [-3.0, 1.0, 0.0, 0.0], [1e300, 5.0, 7.0, 0.0]], dtype=torch.float64
    ).requires_grad_()
    y, ladj = f.call_and_ladj(x)
    assert (ladj[:2, :3] == -math.inf).all()
    assert (ladj[2, 1:3] == -math.inf).all()
    assert (ladj[:, 3] == 0).all()
    assert ladj[2, 0].isfinite()
    assert y.isfinite().all()
    (y.sum() + ladj[ladj.isfinite()].sum()).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_the_maps_of_a_layout_leave_room_for_cells() -> None:
    layout = Layout((), (None,) * 3, (), (0.5, 0.0, 0.5), (0.0, 0.0, None), (4.0, 4.0, None))
    bounds = column_maps(layout)
    assert bounds.low.tolist() == [-0.0005, 0.0, -math.inf]
    assert bounds.high.tolist() == [4.0005, 4.0, math.inf]
    f = bounds()
    # the lowest corner of the lowest cell, and the highest of the highest
    for corner in (0.0, 4.0):
        x = torch.tensor([corner, 1.0, 1.0], dtype=torch.float64)
        assert f.call_and_ladj(x)[1].isfinite()


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"low: .* upper bound 1 of column 1, got 1"):
        Bounds(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 1.0]))
