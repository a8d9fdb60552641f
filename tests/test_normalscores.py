"""Margins made normal from quantiles."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from maskedflow.data import Split
from maskedflow.runs.build import build_flow, start_at_data
from maskedflow.runs.config import FlowConfig
from maskedflow.transforms import NormalScores
from maskedflow.transforms.waiting import Block


def rows(kind: str, n: int = 2000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    match kind:
        case "normal":
            return x
        case "skewed":
            return (3 * x).exp()
        case "lumps":
            return (2 * x).round()
        case "heavy":
            return x / torch.rand(n, 3, dtype=torch.float64, generator=generator) ** 2
    return torch.full_like(x, 7.0)


KINDS = ["normal", "skewed", "lumps", "heavy", "constant"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 30, 2000])
def test_it_goes_there_and_back_far_outside_of_the_data_too(kind: str, n: int) -> None:
    x = rows(kind, n)
    f = NormalScores.fit(x)()
    middle, spread = x.mean(0), x.std(0) if n > 1 else torch.ones(3)
    far = middle + torch.linspace(-1e3, 1e3, 101, dtype=torch.float64)[:, None] * (spread + 1)
    for points in (x, far):
        y, ladj = f.call_and_ladj(points)
        back, back_ladj = f.inv.call_and_ladj(y)
        assert y.isfinite().all()
        size = points.abs().max() + 1
        assert torch.allclose(back / size, points / size, atol=1e-8)
        assert torch.allclose(back_ladj, -ladj, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_its_ladj_is_that_of_autograd(kind: str) -> None:
    x = rows(kind)
    f = NormalScores.fit(x)()
    for point in (x[0] + 0.01, x[1] + 100.0, x[2] - 100.0):
        jacobian = torch.autograd.functional.jacobian(f, point)
        assert torch.allclose(f.call_and_ladj(point)[1], torch.linalg.slogdet(jacobian)[1])


@pytest.mark.parametrize("kind", ["normal", "skewed", "heavy"])
def test_margins_become_normal(kind: str) -> None:
    x = rows(kind, 20_000)
    y = NormalScores.fit(x[:10_000])()(x[10_000:]).sort(0).values
    expected = torch.special.ndtri((torch.arange(10_000) + 0.5).double() / 10_000)
    assert (y - expected[:, None])[100:-100].abs().max() < 0.15


@pytest.mark.parametrize("weight", [None, 2.0])
@pytest.mark.parametrize(
    ("quantile", "farthest"),
    [(lambda u: u, 1.1), (lambda u: -(-u).log1p(), 16.0), (torch.special.ndtri, 6.0)],
)
def test_tails_are_as_long_as_those_of_the_outermost_rows(
    quantile: Callable[[Tensor], Tensor], farthest: float, weight: float | None
) -> None:
    n = 1000
    x = quantile((torch.arange(n).double() + 0.5) / n)[:, None]
    f = NormalScores.fit(x, weight=None if weight is None else torch.full((n,), weight))()
    z = torch.tensor([[2.8], [3.5], [4.5]], dtype=torch.float64)
    drawn, expected = f.inv(z), quantile(torch.special.ndtr(z))
    spread = quantile(torch.tensor([0.5, 0.999], dtype=torch.float64)).diff()
    assert ((drawn - expected).abs() < 0.25 * spread).all()
    assert drawn.max() < farthest
    # and at the other end alike
    mirrored = NormalScores.fit(-x)()
    torch.testing.assert_close(mirrored.inv(-z), -drawn)


def test_where_nothing_is_beyond_the_last_quantile_tails_are_short() -> None:
    x = torch.randn(500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    f = NormalScores.fit(x.clamp(-1, 1))()
    z = torch.tensor([[-5.0], [5.0]], dtype=torch.float64)
    assert f.inv(z).abs().max() < 1.5
    assert f.inv(z).isfinite().all()


def test_absent_numbers_do_not_count() -> None:
    x = rows("skewed")
    there = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    hidden = torch.where(there, x, 1e9)
    assert torch.equal(NormalScores.fit(hidden, there).x, NormalScores.fit(x, there).x)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_weight_do_not_count(kind: str) -> None:
    """Of a column that is constant without them they would be all of its spread."""
    x = rows(kind, 500)
    wild = torch.cat([x, torch.full_like(x[:50], 1e3), torch.full_like(x[:50], x.median())])
    weight = torch.where(torch.arange(len(wild)) < len(x), 1.0, 0.0)
    found, expected = NormalScores.fit(wild, weight=weight), NormalScores.fit(x)
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.slopes, expected.slopes)


def test_knots_out_of_order_are_refused() -> None:
    knots = torch.tensor([[0.0, 2.0, 1.0]])
    with pytest.raises(ValueError, match="ascending knots"):
        NormalScores(knots, knots, torch.ones(1, 3))


def test_weights_count_as_repetitions() -> None:
    x = torch.randn(400, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    often = torch.arange(400) % 3 + 1
    weighted = NormalScores.fit(x, weight=often.double())
    repeated = NormalScores.fit(x.repeat_interleave(often, dim=0))
    assert weighted.x.shape[1] == round(800**2 / (often**2).sum().item()) // 25 + 2
    z, other = weighted()(x), repeated()(x)
    middle = z.abs() < 1.5  # the tails begin where ten rows are left, of rows that count alike
    assert torch.allclose(z[middle], other[middle], atol=0.1)
    assert torch.equal(NormalScores.fit(x, weight=torch.full((400,), 3.0)).x, NormalScores.fit(x).x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 30, 5000])
def test_a_layer_that_waits_is_set_by_rows_and_keeps_its_shape(kind: str, n: int) -> None:
    x = rows(kind, n)
    scores, fitted = NormalScores.waiting(3).double(), NormalScores.fit(x, knots=128)
    shapes = {name: value.shape for name, value in scores.state_dict().items()}
    assert scores.is_waiting
    scores.start([Block(x, None, torch.ones(n, dtype=x.dtype))])
    assert not scores.is_waiting
    assert {name: value.shape for name, value in scores.state_dict().items()} == shapes
    z = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None].expand(-1, 3)
    torch.testing.assert_close(scores().inv(z), fitted().inv(z), rtol=0.05, atol=0.05)
    if n == 5000:
        assert torch.equal(scores().inv(z), fitted().inv(z))


def test_training_rows_set_the_layer_of_a_run_and_its_checkpoint_keeps_it() -> None:
    config = FlowConfig("NSF", {"features": 3, "bins": 4, "first": "scores"})
    flow, other, x = build_flow(config), build_flow(config), rows("skewed").float()
    start_at_data(flow, Split(x), seed=0)
    z = flow.transform.transforms[0]()(x).sort(dim=0).values
    expected = torch.special.ndtri((torch.arange(len(x)) + 0.5) / len(x))
    assert (z - expected[:, None])[20:-20].abs().max() < 0.15
    other.load_state_dict(flow.state_dict())
    assert not other.transform.transforms[0].is_waiting
    assert torch.equal(other().log_prob(x), flow().log_prob(x))
