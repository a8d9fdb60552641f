"""Whether posteriors are calibrated, told of Gaussian ones that are known."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Independent, Normal

from conjugate import Conjugate
from maskedflow.inference import expected_coverage, predictive_check, sbc, tarp

PAIRS, DRAWS = 600, 300


class Batched(Conjugate):
    """The same for many observations at once, in sbi's words."""

    calls = 0

    def sample_batched(self, shape: tuple[int, ...], x: Tensor) -> Tensor:
        self.calls += 1
        return self.sample(shape, x)

    def log_prob_batched(self, theta: Tensor, x: Tensor, norm_posterior: bool = True) -> Tensor:
        assert not norm_posterior  # which costs sbi a rejection sampling
        self.calls += 1
        return self.log_prob(theta, x)


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(PAIRS, 2, dtype=torch.float64, generator=generator)
    return theta, theta + torch.randn(PAIRS, 2, dtype=torch.float64, generator=generator)


Pairs = tuple[Tensor, Tensor]


@pytest.mark.parametrize("kind", [Batched, Conjugate])
def test_a_calibrated_posterior_is_called_so(kind: type[Conjugate], pairs: Pairs) -> None:
    ranks = sbc(kind(), *pairs, n=DRAWS)
    assert ranks.ranks.shape == (PAIRS, 2)
    assert 0 <= ranks.ranks.min() < ranks.ranks.max() <= DRAWS
    assert ranks.counts.sum(1).tolist() == [PAIRS, PAIRS]
    assert min(*ranks.ks, *ranks.chi2) > 0.01
    assert np.abs(ranks.c2st - 0.5).max() < 3 * 0.5 / math.sqrt(PAIRS)
    assert np.abs([ranks.shift, ranks.spread]).max() < 3
    assert ranks.verdicts == ("calibrated", "calibrated")
    for test in (expected_coverage, tarp):
        found = test(kind(), *pairs, n=DRAWS)
        assert found.p_value > 0.01
        assert found.verdict == "calibrated"
        error = np.sqrt(found.levels * (1 - found.levels) / PAIRS)
        assert (np.abs(found.coverage - found.levels) <= 3 * error + 1e-12).all()
        low, high = found.band
        assert ((low <= found.coverage) & (found.coverage <= high)).all()
        inside = (low <= found.levels) & (found.levels <= high)
        assert inside.mean() > 0.8
        assert abs(found.atc) < 3 * 0.25 / math.sqrt(PAIRS)


@pytest.mark.parametrize(("stretch", "verdict"), [(1 / 1.5, "too narrow"), (1.5, "too wide")])
def test_a_wrong_width_is_detected_with_its_sign(
    stretch: float, verdict: str, pairs: Pairs
) -> None:
    posterior, sign = Batched(stretch), 1 if stretch < 1 else -1
    ranks = sbc(posterior, *pairs, n=DRAWS, names=["a", "b"])
    assert ranks.verdicts == (verdict, verdict)
    assert (sign * ranks.spread > 4).all()
    assert (ranks.c2st > 0.53).all()
    assert re.search(rf"^b: {verdict}, p = \S+$", str(ranks), re.MULTILINE)
    for test in (expected_coverage, tarp):
        found = test(posterior, *pairs, n=DRAWS)
        assert found.p_value < 1e-4
        assert sign * found.atc < -0.01
        assert found.verdict.startswith(verdict)
        assert f"{found.verdict}, p = " in str(found)


def test_the_coverage_of_a_narrow_gaussian_is_what_it_is(pairs: Pairs) -> None:
    """Its region of credibility a is that of 1 - (1 - a)^(s²) of the true one, in the plane."""
    stretch = 1 / 1.5
    found = expected_coverage(Batched(stretch), *pairs, n=1000)
    exact = 1 - (1 - found.levels) ** stretch**2
    assert np.abs(found.coverage - exact).max() < 1.63 / math.sqrt(PAIRS)  # KS, 1 %
    area = 1 / 8 - 0.5 ** (1 + stretch**2) / (1 + stretch**2)
    assert found.atc == pytest.approx(area, abs=3 * 0.2 / math.sqrt(PAIRS))


@pytest.mark.parametrize(("shift", "verdict"), [(0.5, "too high"), (-0.5, "too low")])
def test_a_bias_is_detected_with_its_sign(shift: float, verdict: str, pairs: Pairs) -> None:
    ranks = sbc(Batched(shift=shift), *pairs, n=DRAWS)
    assert ranks.verdicts == (verdict, verdict)
    mean = norm.cdf(-shift)  # of two normal numbers of variance 1/2, this far apart
    assert ranks.uniform.mean(0) == pytest.approx([mean, mean], abs=4 * 0.29 / math.sqrt(PAIRS))
    found = expected_coverage(Batched(shift=shift), *pairs, n=DRAWS)
    assert found.verdict == "too narrow or biased"


def test_all_pairs_go_in_one_call(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = Batched()
    sbc(posterior, *pairs, n=100)
    assert posterior.calls == 1
    whole = expected_coverage(posterior, *pairs, n=100)
    assert posterior.calls == 3
    monkeypatch.setattr("maskedflow.inference.draws.ROWS", 20_000)  # 200 pairs at once
    blocks = expected_coverage(posterior, *pairs, n=100)
    assert posterior.calls == 3 + 3 + 4
    assert np.abs(whole.coverage - blocks.coverage).max() < 0.05


def test_what_follows_depends_on_the_seed_alone(pairs: Pairs) -> None:
    before = torch.get_rng_state()
    for test in (sbc, expected_coverage, tarp):
        first, again, other = (test(Batched(), *pairs, n=50, seed=seed) for seed in (1, 1, 2))
        found = [getattr(one, "uniform", None) for one in (first, again, other)]
        if found[0] is None:
            found = [one.credibility for one in (first, again, other)]
        assert (found[0] == found[1]).all()
        assert (found[0] != found[2]).any()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    theta = torch.randn(400, 2)  # by the seed that is given next, and yet independent of it
    x = theta + torch.randn(400, 2)
    assert tarp(Batched(), theta, x, n=100, seed=3).verdict == "calibrated"


class Dice:
    """A posterior that is the prior: three equal numbers."""

    def sample(self, shape: tuple[int, ...], x: Tensor) -> Tensor:
        return torch.randint(3, (*shape, 1)).double()

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        return torch.zeros(len(theta))


def test_equal_samples_share_their_ranks() -> None:
    theta = torch.arange(400).remainder(3)[:, None]
    ranks = sbc(Dice(), theta, torch.zeros(400, 1), n=20)
    assert min(*ranks.ks, *ranks.chi2) > 0.01
    assert expected_coverage(Dice(), theta, torch.zeros(400, 1), n=20).p_value > 0.01


def test_balls_grow_around_the_points_that_are_given(pairs: Pairs) -> None:
    theta, x = pairs
    found = tarp(Batched(), theta, x, n=100, references=theta)  # no sample is nearer
    assert (found.credibility < 1 / 100).all()
    with pytest.raises(ValueError, match=r"references: expected shape \(600, 2\)"):
        tarp(Batched(), theta, x, references=theta[:5])


@pytest.mark.parametrize(
    ("theta", "x", "options", "message"),
    [
        (torch.zeros(5), torch.zeros(5, 1), {}, r"theta: expected shape \(N, D\)"),
        (torch.zeros(5, 1), torch.zeros(4, 1), {}, r"x: expected shape \(5, ...\)"),
        (torch.tensor([[0.0], [math.nan]]), torch.zeros(2, 1), {}, "in row 1"),
        (torch.zeros(5, 1), torch.zeros(5, 2), {}, r"samples of shape \(1000, 5, 1\)"),
        (torch.zeros(5, 1), torch.zeros(5, 1), {"n": 0}, "n: expected at least 1"),
        (torch.zeros(5, 2), torch.zeros(5, 2), {"names": ["a"]}, "names: expected 2"),
    ],
)
def test_what_does_not_fit_is_refused(
    theta: Tensor, x: Tensor, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sbc(Batched(), theta, x, **options)


def test_what_draws_nothing_is_no_posterior() -> None:
    with pytest.raises(TypeError, match=r"^posterior: expected one with sample\(shape, x=...\)"):
        sbc(None, torch.zeros(5, 1), torch.zeros(5, 1))


def test_a_log_density_that_is_none_is_refused() -> None:
    x = torch.zeros(5, 1)
    x[3] = math.nan
    posterior = Conjugate()
    posterior.at = lambda x: Independent(  # type: ignore[method-assign]
        Normal(x.nan_to_num(), torch.ones_like(x), validate_args=False), 1
    )
    posterior.log_prob = lambda theta, x: theta[:, 0] + x  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="NaN given row 3 of x"):
        expected_coverage(posterior, torch.zeros(5, 1), x, n=10)


# ------------------------------------------------------------------------------------- predictive


def simulator(theta: Tensor) -> Tensor:
    return theta + torch.randn_like(theta)


def test_quantiles_of_the_predictive_are_the_exact_ones() -> None:
    x = torch.tensor([3.0, 0.0], dtype=torch.float64)
    found = predictive_check(Conjugate(), simulator, x, n=4000)
    below = norm.cdf((x - x / 2) / math.sqrt(1.5))
    assert found.quantiles == pytest.approx(below, abs=4 * 0.5 / math.sqrt(4000))
    assert found.p_values == pytest.approx([2 * (1 - below[0]), 1], abs=0.06)
    again = predictive_check(Conjugate(), simulator, x[None], n=4000)  # as some write it
    assert (again.simulated == found.simulated).all()


def test_statistics_of_series_and_what_is_far_out() -> None:
    def statistics(x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2)), x.std((1, 2))], 1)

    def series(theta: Tensor) -> np.ndarray:
        return (theta.view(-1, 1, 1) + torch.randn(len(theta), 3, 4)).numpy()

    posterior = Batched()
    posterior.sample = lambda shape, x: torch.randn(*shape, 1) / 4  # type: ignore[method-assign]
    x = torch.linspace(-10, 10, 12).reshape(3, 4)
    found = predictive_check(posterior, series, x, statistics=statistics, names=["mean", "std"])
    assert found.simulated.shape == (1000, 2)
    assert found.p_values[1] == pytest.approx(2 / 1001)
    mean, std = str(found).splitlines()[1:]
    assert not mean.endswith("not as predicted")
    assert std == "std: 6.556 is above 100.0% of the simulations, p = 0.002, not as predicted"


def test_simulations_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"simulations of shape \(1000, 1\)"):
        predictive_check(Conjugate(), lambda theta: theta[:10], torch.zeros(1))
    with pytest.raises(ValueError, match="n: expected at least 1"):
        predictive_check(Conjugate(), simulator, torch.zeros(1), n=0)
    with pytest.raises(ValueError, match=r"finite numbers, got .* of simulation 1"):
        predictive_check(Conjugate(), lambda theta: theta / 0, torch.zeros(1))
