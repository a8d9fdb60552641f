"""Univariate maps that are inverted by finding roots."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from maskedflow.transforms import MonotonicTransform
from maskedflow.transforms.monotonic import bracket, find_root
from oracles import check_inverse_pair

PRECISION = {torch.float32: 2e-6, torch.float64: 2e-14}
dtypes = pytest.mark.parametrize("dtype", PRECISION, ids=str)


@dtypes
@given(st.floats(-1e12, 1e12), st.floats(-5, 5), st.sampled_from([0.1, 10.0]))
def test_roots_of_any_size_are_found_to_the_dtypes_precision(
    dtype: torch.dtype, root: float, log_slope: float, bound: float
) -> None:
    slope = torch.tensor(log_slope, dtype=dtype).exp()
    x = torch.tensor([root, -1e-3 * root, 0.0, 1e6], dtype=dtype)
    ends = bracket(lambda x: slope * x, slope * x, bound)
    found = find_root(lambda x: (slope * x, slope.expand(x.shape)), slope * x, *ends, 1e-6)
    torch.testing.assert_close(
        found, x, rtol=4 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).tiny
    )


@dtypes
def test_roots_of_flat_steep_and_kinked_functions(dtype: torch.dtype) -> None:
    x = torch.tensor([-30.0, -2.0, -1e-2, 0.3, 1.0, 5.0, 70.0], dtype=dtype)
    for f in (
        lambda x: x + 0.999 * x.sin(),
        lambda x: 1e-2 * x + (50 * x).tanh(),
        lambda x: nn.functional.leaky_relu(x, 1e-3),
        lambda x: x**3,
        lambda x: x.sign() * x.abs().log1p(),
    ):
        t = MonotonicTransform(f)
        y, ladj = t.call_and_ladj(x)
        back = t.inv(y)
        # What the rounding of y alone does to x.
        conditioned = PRECISION[dtype] * (y.abs() / ladj.exp() + x.abs() + 1e-3)
        assert ((back - x).abs() <= conditioned).all(), f


def test_the_inverse_has_first_and_second_derivatives_by_y_and_by_the_parameters() -> None:
    y = torch.tensor([-20.0, 0.1, 30.0], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)

    def inverse(y: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return MonotonicTransform(lambda x: a * x + x**3 / 10).inv.call_and_ladj(y)

    assert torch.autograd.gradcheck(inverse, (y, a))
    assert torch.autograd.gradgradcheck(inverse, (y, a))


@dtypes
@pytest.mark.parametrize("batch", [(), (3,), (2, 0), (2, 3)])
def test_laws_for_every_shape_and_under_vmap(dtype: torch.dtype, batch: tuple[int, ...]) -> None:
    x = 2 * torch.randn(batch, dtype=dtype)
    t = MonotonicTransform(lambda x: x.exp() - (-x).exp() + x / 2)
    check_inverse_pair(t, x, atol=1e3 * PRECISION[dtype], rtol=1e3 * PRECISION[dtype])
    if x.numel():
        y = t(x).reshape(-1)
        mapped = torch.func.vmap(t.inv)(y)
        torch.testing.assert_close(mapped, t.inv(y))


def test_parameters_broadcast_against_values_in_both_directions() -> None:
    a = torch.rand(4, 1) + 0.5
    t = MonotonicTransform(lambda x: a * x)
    x = torch.randn(3)
    assert t.inv(x).shape == t(x).shape == (4, 3)
    torch.testing.assert_close(t.inv(x), x / a)


def test_extreme_values_are_finite_in_both_directions_and_have_finite_gradients() -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([-1e6, 1e6], dtype=dtype, requires_grad=True)
        t = MonotonicTransform(lambda x: x + x.tanh())
        for direction in (t, t.inv):
            y, ladj = direction.call_and_ladj(x)
            (gradient,) = torch.autograd.grad(y.sum() + ladj.sum(), x)
            assert torch.isfinite(torch.cat([y, ladj, gradient])).all()
            torch.testing.assert_close(y, x, rtol=2e-6, atol=0)
