"""Bounded numbers on the real line."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskedflow.tables import Bounds, BoundsTransform, Column, Layout, Schema, column_maps
from oracles import autograd_ladjs, check_inverse_pair

LOW = torch.tensor([0.0, 2.0, -math.inf, -math.inf], dtype=torch.float64)
HIGH = torch.tensor([math.inf, 5.0, -1.0, math.inf], dtype=torch.float64)
EDGES = torch.tensor([0.5, 0.4, 2.0, 1.0], dtype=torch.float64)


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
@pytest.mark.parametrize("soft", [False, True])
def test_what_is_drawn_never_leaves_the_bounds(dtype: torch.dtype, soft: bool) -> None:
    low, high = LOW.to(dtype), HIGH.to(dtype)
    f = BoundsTransform(low, high, EDGES.to(dtype) if soft else None)
    y = torch.tensor([-1e30, -1e6, -800.0, -20.0, 20.0, 800.0, 1e6, 1e30], dtype=dtype)[:, None]
    x, ladj = f.inv.call_and_ladj(y.expand(-1, 4))
    assert x.dtype == dtype
    assert x.isfinite().all()
    assert (x > low).all()
    assert (x < high).all()
    assert not ladj.isnan().any()
    assert f.call_and_ladj(x)[0].isfinite().all()


@pytest.mark.parametrize("soft", [False, True])
def test_outside_there_is_no_density_and_gradients_are_numbers(soft: bool) -> None:
    f = BoundsTransform(LOW, HIGH, EDGES if soft else None)
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


@given(st.integers(0, 99), st.floats(0.01, 100.0))
def test_soft_edges_are_bijections_onto_the_real_line(seed: int, width: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    share = 0.01 + 0.98 * torch.rand(3, 5, 4, dtype=torch.float64, generator=generator)
    x = inside(share)
    f = Bounds(LOW, HIGH, width * EDGES)()
    check_inverse_pair(f, x, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(f.call_and_ladj(x[0])[1], autograd_ladjs(f, x[0]))
    y = f(x)
    # the formulas: one edge, and, behind a lower one, another at the image of the upper bound
    s, low, high = width * EDGES, LOW, HIGH

    def bent(length: Tensor) -> Tensor:
        return length + (-torch.expm1(-length)).log()

    first, last = (low[1] + s[1] * bent((at - low[1]) / s[1]) for at in (x[..., 1], high[1]))
    expected = [
        low[0] + s[0] * bent((x[..., 0] - low[0]) / s[0]),
        last - s[1] * bent((last - first) / s[1]),
        high[2] - s[2] * bent((high[2] - x[..., 2]) / s[2]),
        x[..., 3],
    ]
    torch.testing.assert_close(y, torch.stack(expected, dim=-1), rtol=1e-6, atol=1e-6)


@given(st.floats(-300, 0), st.sampled_from([1e-3, 1.0, 1e3]))
def test_soft_edges_are_exact_beside_the_bounds(exponent: float, width: float) -> None:
    low = torch.tensor([0.0, -math.inf, 0.0, -1.0], dtype=torch.float64)
    high = torch.tensor([math.inf, 0.0, 1.0, 0.0], dtype=torch.float64)
    f = BoundsTransform(low, high, torch.full_like(low, width))
    beside = 0.5 * 10**exponent
    x = beside * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    y, ladj = f.call_and_ladj(x)
    back, back_ladj = f.inv.call_and_ladj(y)
    torch.testing.assert_close(back, x, rtol=1e-8, atol=0)
    torch.testing.assert_close(back_ladj, -ladj, rtol=1e-8, atol=1e-12)


def test_soft_edges_leave_alone_what_is_far_from_them() -> None:
    x = torch.tensor([[60.0, 60.0, -60.0, 60.0]], dtype=torch.float64)
    high = torch.tensor([math.inf, 200.0, 0.0, math.inf], dtype=torch.float64)
    f = BoundsTransform(LOW, high, torch.ones_like(LOW))
    for value, ladj in (f.call_and_ladj(x), f.inv.call_and_ladj(x)):
        torch.testing.assert_close(value, x, rtol=1e-12, atol=0)
        torch.testing.assert_close(ladj, torch.zeros_like(x), rtol=0, atol=1e-12)
    both = BoundsTransform(LOW, high, torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(both(x)[0, [0, 2]], x[0, [0, 2]].abs().log() * LOW.new([1, -1]))


def test_inferred_bounds_of_grids_are_soft() -> None:
    rng = np.random.default_rng(0)
    cells = {
        "count": rng.poisson(2, 500),
        "tens": 10 * rng.poisson(2, 500),
        "skewed": np.exp(4 + rng.normal(size=500)),
        "real": rng.normal(size=500),
    }
    schema = Schema.infer(pa.table(cells))
    assert schema.layout.lows == (0, 0, 0, None)
    assert schema.columns[2].kind == "positive"
    assert schema.layout.edges == (2, 20, 0, 0)
    known = Column("count", "discretised", pa.int64(), low=0.0, step=1.0)  # as in old files
    assert Schema((known,)).layout.edges == (0,)
    assert column_maps(schema.layout).state_dict().keys() == {"low", "high"}
    f = column_maps(schema.layout)()
    x = torch.tensor([[0.0, 0.0, 1.0, 0.0], [9.0, 90.0, 9.0, 9.0]], dtype=torch.float64)
    y, ladj = f.call_and_ladj(x)
    assert ladj.isfinite().all()
    assert y[1, 0] == pytest.approx(9, abs=0.05)
    assert y[1, 1] == pytest.approx(90, abs=0.5)
    assert y[1, 2] == pytest.approx(math.log(9))


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
