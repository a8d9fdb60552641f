"""Stacks, plans and the search for a density."""

from __future__ import annotations

import math
import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from generators import generator
from maskedflow.data.split import effective
from maskedflow.flows import MAF
from maskedflow.tables import Layout, Rows, Stack, build_density, fit_density, stacking_weights
from maskedflow.tables.together import together
from maskedflow.tables.weighed import distinct_rows
from maskedflow.tables.work import default_work


def numbers(x: Tensor, observed: Tensor | None = None, codes: Tensor | None = None) -> Rows:
    n = len(x)
    return Rows(
        codes=torch.zeros(n, 0, dtype=torch.long) if codes is None else codes,
        values=x,
        observed=torch.ones_like(x, dtype=torch.bool) if observed is None else observed,
        angles=torch.zeros(n, 0, dtype=torch.float64),
        angles_observed=torch.zeros(n, 0, dtype=torch.bool),
        impossible=torch.zeros(n, dtype=torch.bool),
    )


def plain(features: int) -> Layout:
    nones = (None,) * features
    return Layout((), nones, (), (0.0,) * features, nones, nones)


def crescents(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, dtype=torch.float64, generator=generator)
    x[:, 1] = x[:, 0] ** 2 + 0.2 * x[:, 1]
    return x * torch.tensor([100.0, 0.01]) + 5


def test_stacking_weights_are_the_best_mixture() -> None:
    log_probs = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = stacking_weights(log_probs)
    twice = stacking_weights(log_probs, 1.0 + (torch.arange(200) < 50))
    assert torch.allclose(twice, stacking_weights(torch.cat([log_probs, log_probs[:50]])))
    grid = torch.linspace(1e-6, 1 - 1e-6, 2001, dtype=torch.float64)
    mixtures = torch.stack([grid, 1 - grid], dim=1).log()
    values = (log_probs[:, None] + mixtures).logsumexp(-1).mean(0)
    found = (log_probs + weights.log()).logsumexp(-1).mean()
    assert found >= values.max() - 1e-6
    assert weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("context", [0, 3])
def test_a_stack_is_the_weighted_sum_of_its_members(context: int) -> None:
    members = [MAF(2, context, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    weights = torch.tensor([0.2, 0.3, 0.5])
    stack = Stack(members, weights)
    x = torch.randn(7, 2)
    c = torch.randn(7, 3) if context else None
    expected = sum(w * m(c).log_prob(x).exp() for w, m in zip(weights, members, strict=True))
    assert torch.allclose(stack(c).log_prob(x).exp(), expected, atol=1e-6)
    drawn = stack(c).sample((5,), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == ((5, 7, 2) if context else (5, 2))
    again = stack(c).sample((5,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def test_a_stack_draws_members_as_often_as_they_weigh() -> None:
    members = [MAF(1, generator=torch.Generator().manual_seed(k)).double() for k in range(2)]
    for member, loc in zip(members, (-100.0, 100.0), strict=True):
        member.base.loc = torch.full((1,), loc, dtype=torch.float64)
    stack = Stack(members, torch.tensor([1.0, 3.0], dtype=torch.float64))
    z = stack().sample((4000,), generator=torch.Generator().manual_seed(0))
    assert (z > 0).double().mean().item() == pytest.approx(0.75, abs=0.03)


@pytest.mark.slow
def test_the_search_beats_a_gaussian_and_its_plan_builds_it_again() -> None:
    train, test = crescents(500, 0), crescents(500, 1)
    density = fit_density(plain(2), numbers(train), work=5, seed=0)
    assert any("layers" in member for member in density.plan["members"])
    scores = density.log_prob(numbers(test))
    gaussian = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
    assert scores.mean() > gaussian.log_prob(test).mean() + 0.5
    again = build_density(density.layout, density.plan)
    again.load_state_dict(density.state_dict())
    assert torch.allclose(again.eval().log_prob(numbers(test)), scores, rtol=0, atol=1e-10)
    order = torch.randperm(500)
    assert torch.equal(density.log_prob(numbers(test)[order]), scores[order])
    drawn = density.sample(4000, generator=torch.Generator().manual_seed(0)).values
    assert np.allclose(drawn.mean(0), train.mean(0), atol=0.2 * train.std(0).max())


@pytest.mark.parametrize("flow", ["auto", "gaussian"])
@pytest.mark.parametrize("rows", [1, 2, 15, 60])
def test_a_few_rows_are_enough(rows: int, flow: str) -> None:
    x = crescents(rows, 0)
    density = fit_density(plain(2), numbers(x), flow=flow, work=0.5)
    assert density.log_prob(numbers(x)).isfinite().all()


def test_with_absent_numbers_it_is_a_density_of_codes_and_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 1, dtype=torch.float64, generator=generator)
    codes = (torch.rand(400, 1, generator=generator) < 0.3).long()
    rows = numbers(torch.where(codes == 0, x, 0), codes == 0, codes)
    layout = Layout((2,), (0,), (), (0.0,), (None,), (None,))
    density = fit_density(layout, rows, work=0.5)
    grid = torch.linspace(-12, 12, 1201, dtype=torch.float64)[:, None]
    there = numbers(grid, codes=torch.zeros(1201, 1, dtype=torch.long))
    mass = torch.trapezoid(density.log_prob(there).exp(), grid[:, 0])
    away = numbers(
        torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1).bool(), torch.ones(1, 1).long()
    )
    missing = density.log_prob(away).exp()
    assert mass.item() + missing.item() == pytest.approx(1, abs=1e-3)
    assert missing.item() == pytest.approx(0.3, abs=0.06)


class Clock:
    """A clock that goes on whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.2
        return self.now


@pytest.mark.slow
def test_a_time_limit_says_how_much_work_there_is_and_the_work_what_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, test = crescents(260, 0), numbers(crescents(50, 1))
    limited = []
    for seconds in (3, 6):
        with monkeypatch.context() as patch:
            clock = Clock()
            patch.setattr("maskedflow.tables.search.time", clock)
            patch.setattr("maskedflow.tables.work.time", clock)
            limited.append(fit_density(plain(2), numbers(x), time_limit=seconds))
    first, longer = (density.plan["work"] for density in limited)
    assert longer > 1.5 * first
    again = fit_density(plain(2), numbers(x), work=first)
    assert torch.equal(again.log_prob(test), limited[0].log_prob(test))


def test_without_a_limit_the_size_of_the_table_says_how_much_work_there_is() -> None:
    x = numbers(crescents(20, 0))
    assert fit_density(plain(2), x).plan["work"] == default_work(20, 2)
    for work in (0, math.nan, math.inf, "2"):
        with pytest.raises(
            ValueError, match=f"work: expected a positive number or None, got {work!r}"
        ):
            fit_density(plain(2), x, work=work)  # type: ignore[arg-type]


@pytest.mark.parametrize("flow", ["gaussian", pytest.param("auto", marks=pytest.mark.slow)])
def test_neither_the_scale_of_weights_nor_all_rows_twice_change_anything(flow: str) -> None:
    x, test = crescents(120, 0), numbers(crescents(50, 1))
    weight = torch.rand(120, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    fit = partial(fit_density, plain(2), flow=flow, work=0.2)
    scores = fit(numbers(x), weight=weight).log_prob(test)
    for scale in (2.0, 1e-7, 1e300):
        scaled = fit(numbers(x), weight=scale * weight)
        assert torch.equal(scaled.log_prob(test), scores)
    twice = fit(numbers(x.repeat(2, 1)), weight=weight.repeat(2))
    assert torch.equal(twice.log_prob(test), scores)
    plain_scores = fit(numbers(x)).log_prob(test)
    alike = fit(numbers(x), weight=torch.full((120,), 2.0))
    assert torch.equal(alike.log_prob(test), plain_scores)
    assert not torch.equal(scores, plain_scores)


def test_equal_rows_are_one_unless_a_grid_or_codes_make_them_equal_by_chance() -> None:
    x = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = numbers(x[torch.arange(120) % 40])
    found, _, weight = distinct_rows(plain(2), rows)
    assert torch.equal(found.values, x)
    assert (weight == 1).all()
    _, c, weight = distinct_rows(plain(2), rows, torch.arange(120.0)[:, None] // 80)
    assert c is not None
    assert torch.equal(c, torch.tensor([0.0] * 40 + [1.0] * 40)[:, None])
    assert weight.tolist() == [1.0] * 40 + [0.5] * 40
    assert effective(weight) == pytest.approx(60**2 / 50)
    grid = Layout((), (None,) * 2, (), (1.0,) * 2, (None,) * 2, (None,) * 2)
    assert len(distinct_rows(grid, numbers(x.round()))[0]) == 40
    codes = torch.zeros(40, 1, dtype=torch.long)
    alone = Layout((2,), (), (), (), (), ())
    assert len(distinct_rows(alone, numbers(torch.zeros(40, 0).double(), codes=codes))[0]) == 40


def test_repeated_rows_are_no_evidence_for_a_narrow_density() -> None:
    x, test = crescents(150, 0), numbers(crescents(500, 1))
    often = torch.arange(150) % 9 + 1
    rows = numbers(x.repeat_interleave(often, dim=0))
    gaussian = fit_density(plain(2), rows, flow="gaussian").log_prob(test).mean()
    assert fit_density(plain(2), rows, work=3).log_prob(test).mean() > gaussian - 0.1


@pytest.mark.parametrize("distance", [10.0, 1e3, 1e6])
def test_clusters_far_apart_are_as_narrow_as_they_are(distance: float) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> Tensor:
        far = distance * (torch.rand(n, 1, generator=generator) < 0.3)
        return far + 0.01 * torch.randn(n, 1, dtype=torch.float64, generator=generator)

    density = fit_density(plain(1), numbers(draw(400)), flow="auto", work=0.5)
    test = draw(2000)
    near = torch.distributions.Normal(torch.tensor([0.0, distance]).double(), 0.01)
    truth = (near.log_prob(test) + torch.tensor([0.7, 0.3]).log()).logsumexp(dim=1).mean()
    assert density.log_prob(numbers(test)).mean() > truth - 0.1


@pytest.mark.parametrize(("seed", "work"), [(4, 1), pytest.param(1, 10, marks=pytest.mark.slow)])
def test_mixtures_grow_until_each_cluster_has_a_component(seed: int, work: float) -> None:
    """Though they are no better than others before, and split otherwise in another fold."""
    centres = torch.rand(16, 2, dtype=torch.float64, generator=generator(seed))

    def draw(seed: int) -> Rows:
        g = generator(seed)
        noise = torch.randn(2000, 2, dtype=torch.float64, generator=g)
        return numbers(centres[torch.randint(16, (2000,), generator=g)] + 1e-5 * noise)

    found = fit_density(plain(2), draw(10), work=work).log_prob(draw(20)).mean().item()
    assert found > -math.log(16) - 1 - math.log(2 * math.pi) - 2 * math.log(1e-5) - 0.1


def test_a_fold_without_a_heavy_row_may_have_rows_for_one_component_only() -> None:
    x = torch.randn(150, 4, dtype=torch.float64, generator=generator(0))
    order = torch.randperm(150, generator=generator(0))  # that of the search's folds by seed 0
    weight = torch.ones(150, dtype=torch.float64)
    for row in order[::40].tolist():
        heavy = weight.clone()
        heavy[row] = 30
        density = fit_density(plain(4), numbers(x), work=1, weight=heavy)
        assert density.log_prob(numbers(x)).isfinite().all()


def test_narrow_clusters_may_each_follow_a_context() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        c = torch.randn(n, 1, dtype=torch.float64, generator=generator)
        noise = torch.randn(n, 1, dtype=torch.float64, generator=generator)
        far = (torch.rand(n, 1, generator=generator) < 0.5).double()
        return 1e3 * far + (2 - 5 * far) * c + 0.01 * noise, c

    x, c = draw(400)
    density = fit_density(plain(1), numbers(x), c, work=0.5)
    assert any(one.get("slopes") for one in density.plan["members"])
    x, c = draw(2000)
    scores = density.log_prob(numbers(x), c)
    near = torch.distributions.Normal(torch.cat([2 * c, 1e3 - 3 * c], dim=1), 0.01)
    truth = near.log_prob(x).logsumexp(dim=1).mean() - math.log(2)
    assert scores.mean() > truth - 0.1
    again = build_density(density.layout, density.plan)
    again.load_state_dict(density.state_dict())
    assert torch.allclose(again.eval().log_prob(numbers(x), c), scores)
    drawn = density.sample(2000, c, torch.Generator().manual_seed(0))
    assert abs(density.log_prob(drawn, c).mean() - truth) < 0.1


def test_what_a_wide_table_has_no_work_for_is_not_begun(recwarn: pytest.WarningsRecorder) -> None:
    x = torch.randn(220, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    density = fit_density(plain(400), numbers(x), work=0.01)
    assert density.plan["members"] == [{"front": {"knots": 10, "whiten": False}}]
    assert density.log_prob(numbers(x)).isfinite().all()
    assert not recwarn.list


def test_a_weight_of_two_is_a_row_twice() -> None:
    x = crescents(30, 0)
    weight = torch.ones(30, dtype=torch.float64)
    weight[:10] = 2
    weight[20:] = 0
    repeated = torch.cat([x[:10].repeat_interleave(2, 0), x[10:20]])
    one = fit_density(plain(2), numbers(x), weight=weight, flow="gaussian")
    other = fit_density(plain(2), numbers(repeated), flow="gaussian")
    assert math.isclose(
        one.log_prob(numbers(x)).mean(), other.log_prob(numbers(x)).mean(), abs_tol=1e-6
    )


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="flow: expected one of auto"):
        fit_density(plain(1), numbers(torch.zeros(3, 1).double()), flow="mof")
    with pytest.raises(ValueError, match="weights: expected a positive one"):
        Stack([MAF(1)], torch.zeros(1))


def test_calls_are_made_together_in_threads_of_their_own() -> None:
    """Two wait for each other, each with one thread of torch; all is put back afterwards."""
    before = torch.get_num_threads()
    both = threading.Barrier(2, timeout=20)

    def call(number: int) -> tuple[int, int]:
        both.wait()
        torch.manual_seed(number)
        return number, torch.get_num_threads()

    torch.set_num_threads(2)
    try:
        state = torch.get_rng_state()
        assert together([partial(call, k) for k in range(4)]) == [(k, 1) for k in range(4)]
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError):
            together([lambda: 1 // 0, lambda: 1])
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        here = threading.get_ident()
        assert together([threading.get_ident] * 2) == [here, here]
    finally:
        torch.set_num_threads(before)


def test_a_search_finds_the_same_with_any_number_of_threads() -> None:
    rows = numbers(crescents(500, seed=0))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            density = fit_density(plain(2), rows, work=1.0)
            found.append((density.plan, density.log_prob(rows)))
    finally:
        torch.set_num_threads(before)
    assert len(found[0][0]["members"]) > 1
    for plan, log_prob in found[1:]:
        assert plan == found[0][0]
        assert torch.equal(log_prob, found[0][1])
