"""Chains of numbers by boosted trees."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from maskedflow.distributions.base import log_density
from maskedflow.kernels import trees as kernel
from maskedflow.tables.boosted import BoostedChain, ChainSize
from maskedflow.tables.boosting import _binned, _Trees, fit_boosted, least_work
from maskedflow.transforms import places_in_a_cell


def _rows(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Three numbers, the last of them absent in some rows, one code of two levels, and a number."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 4, dtype=torch.float64, generator=generator)
    code = (noise[:, 3] > 0).long()
    first = noise[:, 0].abs() * (2 * code - 1)
    second = 0.9 * first + math.sqrt(0.19) * noise[:, 1]
    z = torch.stack([first, second, noise[:, 2]], dim=1)
    absent = torch.rand(n, generator=generator) < 0.3
    c = torch.nn.functional.one_hot(code, 2).double()
    state = torch.nn.functional.one_hot(absent.long(), 2).double()
    z[:, 2] = torch.where(absent, 0, z[:, 2])
    return z, torch.cat([c, state, noise[:, 2:3]], dim=1), ~absent


PRESENT = (None, None, 2)


def _fit(n: int, **options: Any) -> BoostedChain:
    z, c, there = _rows(n)
    observed = torch.ones_like(z, dtype=torch.bool)
    observed[:, 2] = there
    weight = torch.ones(n)
    return fit_boosted(z, c, observed, weight, levels=[2, 2], present=PRESENT, **options)[0]


@pytest.fixture(scope="module")
def chain() -> BoostedChain:
    return _fit(400, order=[1, 2, 0], work=0.8)


def test_trees_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((600, 4))
    x[:, 0] = generator.integers(0, 9, 600)
    x[generator.random(600) < 0.2, 2] = np.nan
    y = (x[:, 1] + np.nan_to_num(x[:, 2], nan=2) + (x[:, 0] % 3) > 1.5) & (x[:, 0] != 4)
    train = x[:, 0] != 7  # which is a level that the trees will never have seen
    model = HistGradientBoostingClassifier(max_iter=30, categorical_features=[0], random_state=0)
    model.fit(x[train], y[train])
    trees = _Trees({})
    columns = np.arange(4)
    trees.add(model, columns, [np.unique(x[train, 0]).astype(int)])
    made = {name: tensor.numpy() for name, tensor in trees.tensors().items()}
    total = np.full(600, model._baseline_prediction.item())
    rows, lows = np.arange(600), np.zeros(600, np.int64)
    arrays = [made[name] for name in ("roots", "nodes", "branches", "numbers", "splits")]
    features = np.concatenate([x, np.zeros((600, 1))], axis=1)
    categorical = np.array([True, False, False, False, False])
    kernel.add_trees(features, rows, lows, total, *arrays, categorical)
    assert len(made["splits"]) > 0
    np.testing.assert_array_equal(total, model.decision_function(x))


def test_densities_are_whole(chain: BoostedChain) -> None:
    """Each number's density, given the others, integrates to 1."""
    grid = torch.linspace(-8, 8, 8_001, dtype=torch.float64)
    z, c, _ = _rows(2, seed=1)
    for row in range(2):
        points = z[row].repeat(len(grid), 1)
        points[:, 0] = grid  # the last in the order
        log_prob = chain(c[row]).log_prob(points)
        marginal = chain(c[row]).log_prob(z[row]) - _term(chain, z[row], c[row])
        total = torch.trapezoid((log_prob - marginal).exp(), grid)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-2)


def _term(chain: BoostedChain, z: Tensor, c: Tensor) -> Tensor:
    """The log-density of the first number given the others, by its residuals' slope."""
    edges = chain.cuts[2, : int(chain.cells[2]) - 1]
    cell = int(torch.searchsorted(edges, z[0], right=True))
    low = edges[cell - 1] if cell else torch.tensor(-9.0).double()
    high = edges[cell] if cell < len(edges) else torch.tensor(9.0).double()
    ends = z.repeat(2, 1)
    ends[0, 0], ends[1, 0] = low, torch.nextafter(high, low)
    u = chain(c.expand(2, -1)).residuals(ends)[:, 0]
    mass = torch.special.ndtr(high) - torch.special.ndtr(low)
    density = -0.5 * z[0] ** 2 - 0.5 * math.log(2 * math.pi)
    return ((u[1] - u[0]) / mass).log() + density


def test_gains_on_independent_columns(chain: BoostedChain) -> None:
    z, c, there = _rows(2000, seed=2)
    plain = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    plain[:, 2] = torch.where(there, plain[:, 2], 0)
    gain = chain(c).log_prob(z) - plain.sum(dim=1)
    assert gain.mean() > 0.8
    # The third number is told by the context; the price of a surprise is bounded.
    assert gain.min() > 3 * math.log(1e-3) * chain.baseline.shape[1]


def test_absent_numbers_do_not_count(chain: BoostedChain) -> None:
    z, c, there = _rows(50, seed=3)
    other = z.clone()
    other[:, 2] = torch.where(there, z[:, 2], 5.0)
    assert torch.equal(chain(c).log_prob(z), chain(c).log_prob(other))


def test_a_row_has_no_others_in_it(chain: BoostedChain) -> None:
    z, c, _ = _rows(300, seed=4)
    whole, residuals = chain(c).log_prob(z), chain(c).residuals(z)
    for part in (slice(0, 1), slice(7, 90)):
        assert torch.equal(chain(c[part]).log_prob(z[part]), whole[part])
        assert torch.equal(chain(c[part]).residuals(z[part]), residuals[part])


def test_samples_are_of_the_density(chain: BoostedChain) -> None:
    _, c, there = _rows(4_000, seed=5)
    generator = torch.Generator().manual_seed(0)
    z = chain(c).sample(generator=generator)
    again = chain(c).sample(generator=torch.Generator().manual_seed(0))
    assert torch.equal(z, again)
    assert bool((z[~there, 2] == 0).all())
    u = chain(c).residuals(z)
    for column, seen in ((0, there | True), (1, there | True), (2, there)):
        found = u[seen, column].sort().values
        expected = (torch.arange(len(found)) + 0.5) / len(found)
        assert (found - expected).abs().max() < 2 / math.sqrt(len(found))


def test_is_made_again_from_its_state(chain: BoostedChain) -> None:
    again = BoostedChain(chain.levels, chain.present, chain.context, ChainSize(*chain.size))
    again.load_state_dict(chain.state_dict())
    z, c, _ = _rows(40, seed=6)
    assert torch.equal(again(c).log_prob(z), chain(c).log_prob(z))


def test_is_the_same_again_but_not_for_another_seed() -> None:
    first, again = (_fit(120, work=0.3) for _ in range(2))
    other = _fit(120, work=0.3, seed=1)
    z, c, _ = _rows(40, seed=6)
    assert torch.equal(first(c).log_prob(z), again(c).log_prob(z))
    assert not torch.equal(first(c).log_prob(z), other(c).log_prob(z))


def test_nothing_to_learn_is_the_margin() -> None:
    z = torch.randn(200, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    observed, weight = torch.ones_like(z, dtype=torch.bool), torch.ones(200)
    chain, work = fit_boosted(z, None, observed, weight, levels=[], present=[None])
    expected = (-0.5 * z**2 - 0.5 * math.log(2 * math.pi))[:, 0]
    torch.testing.assert_close(chain().log_prob(z), expected)
    assert work == 0
    assert chain().sample((3,)).shape == (3, 1)


def test_wide_rows_take_no_more_work_than_there_is() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(150, 40, dtype=torch.float64, generator=generator).cumsum(dim=1)
    z = z / z.std(dim=0)
    observed, weight = torch.ones_like(z, dtype=torch.bool), torch.ones(150)
    work = least_work(150, 40, 0)
    for share in (0.2, 1.0):
        options: Any = {"levels": [], "present": [None] * 40, "work": share * work}
        chain, spent = fit_boosted(z, None, observed, weight, **options)
        assert 0 < spent <= share * work
        assert chain.size.trees


def test_noise_gets_no_trees_or_little_trust() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(150, 3, dtype=torch.float64, generator=generator)
    observed = torch.ones_like(z, dtype=torch.bool)
    options: Any = {"levels": [], "present": [None] * 3, "work": 0.3}
    chain, _ = fit_boosted(z, None, observed, torch.ones(150), **options)
    fresh = torch.randn(2000, 3, dtype=torch.float64, generator=generator)
    plain = (-0.5 * fresh**2 - 0.5 * math.log(2 * math.pi)).sum(dim=1)
    assert (chain().log_prob(fresh) - plain).mean() > -0.1


def test_weights_are_repetitions() -> None:
    z, c, there = _rows(150)
    observed = torch.ones_like(z, dtype=torch.bool)
    observed[:, 2] = there
    weight = torch.ones(150)
    weight[z[:, 1] > 0.5] = 20.0
    options: Any = {"levels": [2, 2], "present": PRESENT, "work": 0.4}
    heavy, _ = fit_boosted(z, c, observed, weight, **options)
    same, _ = fit_boosted(z, c, observed, 3 * torch.ones(150), **options)
    light, _ = fit_boosted(z, c, observed, torch.ones(150), **options)
    z, c, _ = _rows(1000, seed=7)
    assert torch.equal(same(c).log_prob(z), light(c).log_prob(z))
    high = z[:, 1] > 0.5
    assert (heavy(c).log_prob(z) - light(c).log_prob(z))[high].mean() > 0.1


def _scores(x: Tensor) -> Tensor:
    """A map of a grid from 0 to 6 to normal scores."""
    return torch.special.ndtri((x + 1e-6) / (6 + 2e-6))


def test_cells_of_grids_add_up_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 6, (800,), generator=generator).double()
    second = (first + torch.randint(0, 2, (800,), generator=generator)).clamp(max=5)
    x = torch.stack([first, second], dim=1)
    noise = torch.rand(800, 2, dtype=torch.float64, generator=generator)
    observed = torch.ones_like(x, dtype=torch.bool)
    options: Any = {"levels": [], "present": [None] * 2, "work": 1.2}
    cells = _scores(x), _scores(x + 1)
    chain, _ = fit_boosted(
        _scores(x + noise), None, observed, torch.ones(800), cells=cells, **options
    )
    every = torch.cartesian_prod(torch.arange(6), torch.arange(6)).double()
    places = places_in_a_cell(2)[:, None]
    z = _scores(every + places)
    log_probs = chain().log_probs_at(z)
    assert torch.equal(log_probs, torch.stack([chain().log_prob(place) for place in z]))
    slope = -math.log(6 + 2e-6) + 0.5 * z**2 + 0.5 * math.log(2 * math.pi)
    mass = (log_probs + slope.sum(dim=-1)).exp().mean(dim=0)
    assert abs(mass.sum() - 1) < 1e-5
    probable = (every[:, 1] >= every[:, 0]) & (every[:, 1] <= every[:, 0] + 1)
    assert mass[probable].sum() > 0.9


def test_a_far_number_has_a_density(chain: BoostedChain) -> None:
    _, c, _ = _rows(1)
    log_prob = log_density(chain(c), torch.full((1, 3), 60.0).double())
    assert bool(log_prob.isfinite().all())


def test_refuses_a_context_of_another_size(chain: BoostedChain) -> None:
    with pytest.raises(ValueError, match=r"c: expected 5 features, got 4"):
        chain(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"c: expected 5 features, got none"):
        chain()


def test_weighted_rows_are_binned_by_their_weights() -> None:
    generator = np.random.default_rng(0)
    x, weight = generator.normal(size=5000), generator.exponential(size=5000)
    weight[x > 1] = 0
    x[::10] = math.nan
    binned, ends = _binned(x, weight)
    there = ~np.isnan(x)
    assert np.array_equal(np.isnan(binned), ~there)
    assert len(ends) == len(np.unique(binned[there])) == 255
    # No row passes an end, and between two of them are rows of like weight.
    place = np.searchsorted(ends, x[there])
    assert np.array_equal(binned[there], ends[place])
    masses = np.bincount(place, weights=weight[there])[:-1]
    assert abs(masses - weight[there].sum() / 255).max() < weight.max()
    alone = np.full(3, math.nan)
    assert np.isnan(_binned(alone, np.ones(3))[0]).all()


def test_trees_of_binned_numbers_are_those_of_the_numbers() -> None:
    generator = np.random.default_rng(0)
    x, weight = generator.normal(size=(2000, 1)), generator.exponential(size=2000)
    binned, ends = _binned(x[:, 0], weight)
    model = HistGradientBoostingClassifier(max_iter=10, random_state=0)
    model.fit(binned[:, None], np.sin(3 * x[:, 0]) > 0, weight)
    trees = _Trees({0: ends})
    trees.add(model, np.arange(1), [])
    made = {name: tensor.numpy() for name, tensor in trees.tensors().items()}
    arrays = [made[name] for name in ("roots", "nodes", "branches", "numbers", "splits")]
    total = np.full(2000, model._baseline_prediction.item())
    features = np.concatenate([x, np.zeros((2000, 1))], axis=1)
    rows, lows, categorical = np.arange(2000), np.zeros(2000, np.int64), np.zeros(2, bool)
    kernel.add_trees(features, rows, lows, total, *arrays, categorical)
    np.testing.assert_array_equal(total, model.decision_function(binned[:, None]))
