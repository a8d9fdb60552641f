"""The compiled maps of one feature against torch's, and the functions that they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskedflow.kernels import Map, elementary, maps
from maskedflow.kernels.tile import PANEL_BYTES
from maskedflow.transforms import (
    AdditiveTransform,
    MeanPrecisionTransform,
    MonotonicAffineTransform,
    MonotonicMixtureTransform,
    MonotonicRQSTransform,
)

#: The class of a map, the shapes of its parameters, and what the compiled one takes beside them.
MAPS: dict[Map, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    Map.AFFINE: (MonotonicAffineTransform, ((), ())),
    Map.GAUSSIAN: (MeanPrecisionTransform, ((), ())),
    Map.ADDITIVE: (AdditiveTransform, ((),)),
    Map.SPLINE: (MonotonicRQSTransform, ((8,), (8,), (7,))),
    Map.MIXTURE: (MonotonicMixtureTransform, ((5,), (5,), (5,))),
}
BOUND = 5.0  # of the splines
every_map = pytest.mark.parametrize("code", MAPS)
dtypes = st.sampled_from([np.float32, np.float64])
#: The size of parameters: at 100, most clamps are active.
sizes = st.sampled_from([0.0, 0.3, 1.0, 3.0, 100.0])
precisions = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@cache
def compiled_map(code: Map, name: str) -> Any:
    """A function of a map, which the kernel's own code calls without a wrapper for Python."""
    function = getattr(maps.TABLE[code], name)

    def call(*arguments: Any) -> None:
        function(*arguments)

    return numba.njit(call)


def evaluate(code: Map, *arguments: Any) -> None:
    compiled_map(code, "evaluate")(*arguments)


def differentiate(code: Map, *arguments: Any) -> None:
    compiled_map(code, "differentiate")(*arguments)


def invert(code: Map, *arguments: Any) -> None:
    compiled_map(code, "invert")(*arguments)


def constants_of(code: Map) -> Any:
    kind, shapes = MAPS[code]
    found, constants = kind(*map(torch.zeros, shapes)).kernel
    assert found is code
    return np.array(constants, np.float64)


def torchs(code: Map, phi: Tensor) -> Any:
    """The map of torch with parameters (parameters, samples)."""
    kind, shapes = MAPS[code]
    parts = phi.t().split([math.prod(shape) for shape in shapes], dim=-1)
    return kind(
        *(
            part.unflatten(-1, shape) if shape else part[..., 0]
            for part, shape in zip(parts, shapes, strict=True)
        )
    )


def torchs_way(code: Map, phi: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """What `evaluate` makes of x and adds to the ladj."""
    f = torchs(code, phi)
    return (x, f.log_density(x)) if code is Map.MIXTURE else f.call_and_ladj(x)


def draw(code: Map, dtype: Any, size: float, seed: int, reach: float) -> tuple[Any, Any]:
    """Parameters of so many standard deviations, and data: some are far out, some on an edge."""
    source = np.random.default_rng(seed)
    count = sum(math.prod(shape) for shape in MAPS[code][1])
    width = PANEL_BYTES // np.dtype(dtype).itemsize
    phi = size * source.normal(size=(count, width))
    x = 3 * source.normal(size=width)
    x[:10] = [reach, -reach, 0, -BOUND, BOUND, -4.9999, 4.9999, 0.1 * reach, -7, 7]
    return phi.astype(dtype), x.astype(dtype)


def close(found: Any, expected: Tensor, dtype: Any, scale: float = 1.0) -> None:
    tolerance = scale * (1e-5 if dtype is np.float32 else 1e-11)
    reference = expected.detach().numpy()
    np.testing.assert_allclose(found, reference, rtol=tolerance, atol=tolerance)


reaches = st.sampled_from([10.0, 1e3, 1e6])


@every_map
@given(dtypes, sizes, st.integers(0, 999), reaches)
def test_values(code: Map, dtype: Any, size: float, seed: int, reach: float) -> None:
    phi, x = draw(code, dtype, size, seed, reach)
    z, ladj = x.copy(), np.ones_like(x)
    evaluate(code, phi, constants_of(code), z, ladj)
    exact = torch.tensor(phi).double(), torch.tensor(x).double()
    expected, expected_ladj = torchs_way(code, *exact)
    close(z, expected, dtype, 10)
    steep = code is Map.SPLINE and dtype is np.float32
    close(ladj - 1, expected_ladj, dtype, 2000 if steep else 100)


@every_map
@given(dtypes, sizes, st.integers(0, 999), reaches)
def test_gradients(code: Map, dtype: Any, size: float, seed: int, reach: float) -> None:
    """In single precision only of moderate numbers: elsewhere rounding is all there is."""
    if dtype is np.float32:
        size, reach = min(size, 3.0), 10.0
    phi, x = draw(code, dtype, size, seed, reach)
    source = np.random.default_rng(seed + 1)
    by_z, by_ladj = source.normal(size=(2, x.size)).astype(dtype)
    dphi, dx = np.full_like(phi, np.nan), by_z.copy()
    differentiate(code, phi, constants_of(code), x, by_ladj, dphi, dx)
    inputs = [torch.tensor(one).double().requires_grad_() for one in (phi, x)]
    z, ladj = torchs_way(code, *inputs)
    loss = (torch.tensor(by_ladj) * ladj).sum()
    if code is not Map.MIXTURE:
        loss = loss + (torch.tensor(by_z) * z).sum()
    expected = torch.autograd.grad(loss, inputs, materialize_grads=True)
    for found, gradient in zip((dphi, dx), expected, strict=True):
        # What is added up in a column is as exact as its largest number.
        most = gradient.abs().amax(0) + 1e-3 if gradient.ndim > 1 else gradient.abs() + 1
        # Far from a mixture its log-density, the square of a distance, is rounded before shares.
        scale = max(100, 1e-6 * reach**2) if code is Map.MIXTURE else 100
        if code is Map.SPLINE and dtype is np.float32:
            scale = 2000  # steep bins: torch's own, in single precision, are off by 1 %
        close(found / most.numpy(), gradient / most, dtype, scale)


@every_map
@given(dtypes, sizes, st.integers(0, 999), reaches)
def test_inverses(code: Map, dtype: Any, size: float, seed: int, reach: float) -> None:
    phi, z = draw(code, dtype, size, seed, reach)
    x, ladj = z.copy(), np.ones_like(z)
    invert(code, phi, constants_of(code), x, ladj)
    f = torchs(code, torch.tensor(phi).double())
    with torch.no_grad():
        expected, expected_ladj = f.inv.call_and_ladj(torch.tensor(z).double())
    close(x, expected, dtype, 100 if code is Map.MIXTURE else 10)  # that one searches for roots
    # Torch's mixtures subtract logarithms that are as large as the square of the latent.
    close(ladj - 1, expected_ladj, dtype, max(100, 1e-4 * reach**2) if code is Map.MIXTURE else 100)


FUNCTIONS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "exp": (elementary.exp, np.exp),
    "tanh": (elementary.tanh, np.tanh),
    "log": (elementary.log, np.log),
}


def compiled(function: Any) -> Callable[[Any], Any]:
    """A function as a loop over an array."""

    def loop(x: Any, out: Any) -> None:
        for j in range(x.size):
            out[j] = function(x[j])

    fast = numba.njit(loop, error_model="numpy", fastmath={"contract", "nsz"})

    def of(x: Any) -> Any:
        out = np.empty_like(x)
        fast(x, out)
        return out

    return of


@precisions
@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_functions_are_exact_to_rounding(name: str, dtype: Any) -> None:
    function, reference = FUNCTIONS[name]
    largest = {"exp": 87 if dtype is np.float32 else 708, "tanh": 100}.get(name, 1)
    x = np.concatenate([np.linspace(-largest, largest, 20_001), np.linspace(-1, 1, 20_001)])
    if name == "log":
        number = np.finfo(dtype)
        far = np.geomspace(number.tiny, number.max, 20_001, dtype=np.longdouble)
        x = np.concatenate([far[:-1], abs(x) + 0.5, [3 * number.smallest_subnormal]])
    x = x.astype(dtype)
    found, expected = compiled(function)(x), reference(x.astype(np.longdouble))
    assert np.all(abs(found - expected) <= 3 * np.finfo(dtype).eps * abs(expected))


@precisions
def test_what_elementary_functions_are_at_their_ends(dtype: Any) -> None:
    x = np.array([-math.inf, 0, math.inf, math.nan], dtype)
    end = compiled(elementary.tanh)(x)
    np.testing.assert_array_equal(end, np.array([-1, 0, 1, math.nan], dtype))
    x = np.array([-math.inf, -1, -0.0, 0, 1, math.inf, math.nan], dtype)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(compiled(elementary.log)(x), np.log(x))
    # An exponential ends near the least and the largest number.
    x = np.array([-math.inf, math.inf, math.nan], dtype)
    least, largest, none = compiled(elementary.exp)(x)
    assert 0 <= least < 1e-37
    assert largest > 1e38
    assert np.isnan(none)


def test_the_scaled_error_function() -> None:
    x = np.concatenate([np.linspace(0, 10, 20_001), np.geomspace(1, 1e150, 2_001)])
    np.testing.assert_allclose(compiled(elementary.erfcx)(x), scipy.special.erfcx(x), rtol=2e-15)


@precisions
def test_a_mixture_far_out_keeps_its_tails(dtype: Any) -> None:
    """Data and latents correspond where both tails are zero in numbers."""
    phi, z = draw(Map.MIXTURE, dtype, 1.0, 0, 1e6)
    x, ladj = z.copy(), np.zeros_like(z)
    invert(Map.MIXTURE, phi, constants_of(Map.MIXTURE), x, ladj)
    back, _ = torchs(Map.MIXTURE, torch.tensor(phi)).call_and_ladj(torch.tensor(x))
    close(z, back, dtype, 10)
