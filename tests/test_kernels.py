"""The compiled loops against NumPy and torch."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.kernels import GROUP, Code
from maskedflow.kernels.elementary import exp
from maskedflow.kernels.job import scratch
from maskedflow.kernels.tile import CHUNK, PANEL_BYTES, add_product
from strategies import ACTIVATIONS, Case, cases

few = settings(max_examples=6)
precisions = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@numba.njit
def call_product(like: Any, integers: Any) -> None:
    a, row_step, column_step, rows, b, b_step, c, c_step, n, width, start, start_step, gate = (
        integers
    )
    add_product(
        like,
        a,
        row_step,
        column_step,
        rows,
        b,
        b_step,
        c,
        c_step,
        n,
        width,
        start,
        start_step,
        gate,
    )


@numba.njit
def exponentials(x: Any, out: Any) -> None:
    for j in range(x.size):
        out[j] = exp(x[j])


@precisions
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
@pytest.mark.parametrize("rows", [*range(1, GROUP + 1), 3 * GROUP + 1])
def test_product(dtype: Any, transposed: bool, n: int, rows: int) -> None:
    source = np.random.default_rng(0)
    width = PANEL_BYTES // np.dtype(dtype).itemsize
    # Parts of larger arrays, so that a write beyond the rows would be seen.
    a = source.normal(size=(n + 2, rows + 3) if transposed else (rows + 3, n + 2)).astype(dtype)
    b = source.normal(size=(n + 1, width + 3)).astype(dtype)
    c = source.normal(size=(rows + 2, width + 5)).astype(dtype)
    used = a[:n, :rows].T if transposed else a[:rows, :n]
    expected = c.copy()
    expected[1 : rows + 1, :width] += used @ b[:n, :width]
    steps = (1, a.shape[1]) if transposed else (a.shape[1], 1)
    place = c.ctypes.data + c.strides[0]
    places = (a.ctypes.data, *steps, rows, b.ctypes.data, width + 3, place, width + 5, n)
    call_product(dtype(0), np.array([*places, PANEL_BYTES, 0, 0, 0]))
    np.testing.assert_allclose(c, expected, rtol=1e-4 if dtype is np.float32 else 1e-12, atol=1e-4)
    assert (c[[0, -1]] == expected[[0, -1]]).all()
    assert (c[:, width:] == expected[:, width:]).all()


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.float32, -87, 88), (np.float64, -708, 709)])
def test_exponential_is_exact_to_rounding(dtype: Any, low: float, high: float) -> None:
    x = np.concatenate([np.linspace(low, high, 20_001), np.linspace(-1, 1, 20_001)]).astype(dtype)
    out = np.empty_like(x)
    exponentials(x, out)
    expected = np.exp(x.astype(np.longdouble))
    assert np.max(np.abs(out / expected - 1)) < 3 * np.finfo(dtype).eps
    far = np.array([-1e30, -math.inf, 0.0, math.nan], dtype)
    exponentials(far, out[:4])
    assert 0 <= out[0] < 1e-37
    assert 0 <= out[1] < 1e-37
    assert out[2] == 1
    assert np.isnan(out[3])


def torchs_way(net: mf.nn.MaskedMLP, x: Tensor, c: Tensor | None) -> Tensor:
    """Layer by layer through torch, with dense matrices."""
    sums: list[Tensor] = []
    for number, layer in enumerate(net.layers):
        total = nn.functional.linear(net.activation(sums[-1]) if sums else x, layer.dense())
        total = total + layer.bias
        if not sums and c is not None:
            total = total + nn.functional.linear(c, net.context.dense())
        sums.append(total + sums[-2] if number in net.skips else total)
    return sums[-1]


@few
@given(cases(activations=ACTIVATIONS), st.sampled_from([(), (1,), (3,), (70,), (2, 40), (0,)]))
def test_networks_and_their_gradients(case: Case, batch: tuple[int, ...]) -> None:
    net = case.build(mf.flows.MADE).transform.transforms[0].hyper
    assert net.trunk.is_compiled(case.x())
    x = case.x(*batch).requires_grad_()
    c = case.c(*batch)
    sources = [x, *net.parameters(), *([] if c is None else [c.requires_grad_()])]
    found, expected = net(x, c), torchs_way(net, x, c)
    tolerance = (
        {"atol": 1e-10, "rtol": 1e-9}
        if case.dtype == torch.float64
        else {"atol": 2e-4, "rtol": 2e-4}
    )
    torch.testing.assert_close(found, expected, **tolerance)
    with torch.no_grad():
        torch.testing.assert_close(net(x, c), expected, **tolerance)
    upstream = case.draw(*expected.shape, seed=7)
    ours = torch.autograd.grad(found, sources, upstream)
    theirs = torch.autograd.grad(expected, sources, upstream)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, **tolerance)


@pytest.mark.parametrize("hidden", [(), (50,), (70, 90), (64, 64, 64)], ids=str)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_networks_of_several_slabs_and_strips(hidden: tuple[int, ...], residual: bool) -> None:
    case = Case(90, 2, hidden_features=hidden, residual=residual, activation=nn.ReLU)
    net = case.build(mf.flows.MADE).transform.transforms[0].hyper
    x, c = case.x(150).requires_grad_(), case.c(150)
    found, expected = net(x, c), torchs_way(net, x, c)
    sources = [x, *net.parameters()]
    for mine, other in zip(
        torch.autograd.grad(found.sin().sum(), sources),
        torch.autograd.grad(expected.sin().sum(), sources),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(("features", "hidden"), [(63, (512, 512)), (43, (100,)), (21, (512,))])
def test_gradients_compute_every_weight_once(features: int, hidden: tuple[int, ...]) -> None:
    """Where the last piece of a slab and the first of the next one are of the same columns, too."""
    trunk = mf.flows.MADE(features, hidden_features=hidden).transform.transforms[0].hyper.trunk
    for layer, stair in enumerate(trunk.stairs):
        computed = np.zeros(stair.size, int)
        for one in trunk.kept.gradients.operations:
            if one.layer == layer:
                u, k = np.ogrid[: one.rows, : one.columns]
                computed[one.offset + u * one.row_step + k * one.column_step] += 1
        assert (computed[stair.packed_mask()] == 1).all()
        assert computed.max() == 1


def test_a_backward_pass_may_come_after_another_forward_pass() -> None:
    """What a graph needs is its own: no later call writes over it."""
    case = Case(7, hidden_features=(20, 20), activation=nn.ReLU)
    net = case.build(mf.flows.MADE).transform.transforms[0].hyper
    xs = [case.draw(100, 7, seed=seed).requires_grad_() for seed in (1, 2, 3)]
    ys = [net(x) for x in xs]
    case.build()().sample((100,))
    for x, y in zip(xs, ys, strict=True):
        (found,) = torch.autograd.grad(y.square().sum(), x)
        (expected,) = torch.autograd.grad(torchs_way(net, x, None).square().sum(), x)
        torch.testing.assert_close(found, expected)


def test_programs_are_what_they_say() -> None:
    net = Case(5, hidden_features=(9,)).build(mf.flows.MADE).transform.transforms[0].hyper
    program = net.trunk.kept.forward
    assert [one.code for one in program.operations][-1] is Code.PRODUCT
    assert len(str(program).splitlines()) == len(program.operations)
    assert len(program.tables["PROGRAM"]) == len(program.operations)


def test_scratch_memory_is_reused_and_grows() -> None:
    like = torch.empty(0, dtype=torch.float64)
    first = scratch("test", 10, like)
    assert scratch("test", 5, like).data_ptr() == first.data_ptr()
    assert len(scratch("test", 1000, like)) >= 1000
    assert scratch("test", 5, like.float()).dtype == torch.float32


@pytest.mark.parametrize("noise", [1.0, 10.0, 100.0])
def test_extreme_splines_are_inverted_without_cancellation(noise: float) -> None:
    """In single precision, against the same spline in double: steep bins beside flat ones."""
    for seed in range(5):
        case = Case(1, transforms=1, hidden_features=(1,), dtype=torch.float32, seed=seed)
        flow = case.build(mf.flows.NSF, noise=noise)
        z = 2 * case.draw(500, 1)
        with torch.no_grad():
            x, ladj = flow().transform.inv.call_and_ladj(z)
            exact, exact_ladj = flow.double()().transform.inv.call_and_ladj(z.double())
        torch.testing.assert_close(x.double(), exact, atol=2e-3, rtol=0)
        torch.testing.assert_close(ladj.double(), exact_ladj, atol=2e-2, rtol=0)
