"""Mixtures of products, and how kernels and forests are fitted as such."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torch.nn.functional import one_hot

from maskedflow.tables.forest import fit_forest
from maskedflow.tables.kernel_density import fit_kernels
from maskedflow.tables.products import MixtureOfProducts

LEVELS = (2, 3)
PRESENT = (None, 1)
FITS = (fit_kernels, fit_forest)


def table(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two numbers that follow codes and each other; the second is there if the first code is 1."""
    rng = np.random.default_rng(seed)
    state, kind = rng.integers(2, size=n), rng.integers(3, size=n)
    x = rng.normal(size=n) + kind - 1
    y = np.where(kind > 1, -1, 1) * x + 0.3 * rng.normal(size=n)
    z = torch.from_numpy(np.stack([x / 1.3, y / 1.4 * state], axis=1))
    observed = torch.from_numpy(np.stack([state >= 0, state > 0], axis=1))
    codes = torch.from_numpy(np.stack([state, kind], axis=1))
    parts = [one_hot(one, level) for one, level in zip(codes.T, LEVELS, strict=True)]
    return z, torch.cat(parts, dim=1).double(), observed


@pytest.fixture(scope="module", params=FITS)
def fitted(request: pytest.FixtureRequest) -> MixtureOfProducts:
    z, c, observed = table(400, 0)
    made: MixtureOfProducts = request.param(z, c, observed, torch.ones(400), PRESENT, LEVELS)[0]
    return made


def contexts() -> Tensor:
    """Each combination of codes."""
    pairs = [(a, b) for a in range(2) for b in range(3)]
    both = [[*np.eye(2)[a], *np.eye(3)[b]] for a, b in pairs]
    return torch.tensor(np.array(both))


def independent(z: Tensor, observed: Tensor) -> Tensor:
    each = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
    return torch.where(observed, each, 0).sum(dim=1)


def test_integrates_to_one(fitted: MixtureOfProducts) -> None:
    for c in contexts()[:4]:
        both = bool(c[1])
        x = torch.linspace(-7, 7, 301 if both else 4001, dtype=torch.float64)
        y = x if both else torch.zeros(1, dtype=torch.float64)
        mass = fitted(c).log_prob(torch.cartesian_prod(x, y)).exp().sum()
        assert float(mass * (x[1] - x[0]) ** (1 + both)) == pytest.approx(1, abs=0.02)


def test_learns(fitted: MixtureOfProducts) -> None:
    z, c, observed = table(1000, 1)
    gain = fitted(c).log_prob(z) - independent(z, observed)
    known = observed[:, 1]
    assert gain[known].mean() > 1.2
    assert gain[~known].mean() > 0.05


def test_absent_numbers_are_left_out(fitted: MixtureOfProducts) -> None:
    z, c, observed = table(50, 2)
    other = torch.where(observed, z, 7.0)
    assert torch.equal(fitted(c).log_prob(z), fitted(c).log_prob(other))
    # The marginal density, of the same components: what is left after an integral.
    always = MixtureOfProducts(
        len(fitted.loc), (None, None), LEVELS, truncated=fitted.low is not None
    )
    always.load_state_dict(fitted.state_dict())
    y = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    given = contexts()[1]
    pairs = torch.stack([torch.full_like(y, 0.4), y], dim=1)
    joint = always(given).log_prob(pairs).exp().sum() * (y[1] - y[0])
    marginal = fitted(given).log_prob(torch.tensor([0.4, 0.0], dtype=torch.float64)).exp()
    assert float(joint) == pytest.approx(float(marginal), rel=0.01)


def test_a_row_does_not_depend_on_others(fitted: MixtureOfProducts) -> None:
    z, c, _ = table(60, 3)
    whole = fitted(c).log_prob(z)
    alone = torch.stack([fitted(c[i]).log_prob(z[i]) for i in range(60)])
    flipped = fitted(c.flip(0)).log_prob(z.flip(0)).flip(0)
    assert torch.equal(whole, alone)
    assert torch.equal(whole, flipped)


def test_samples_are_beside_densities(fitted: MixtureOfProducts) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    for c in contexts():
        z = fitted(c).sample((4000,), generator)
        assert bool((z[:, 1] == 0).all()) != bool(c[1])
        if not c[1]:
            density = fitted(c).log_prob(torch.stack([x, torch.zeros_like(x)], dim=1)).exp()
            cdf = density.cumsum(0) * (x[1] - x[0])
            assert kstest(z[:, 0], lambda at, cdf=cdf: np.interp(at, x, cdf)).pvalue > 1e-3
        u = torch.rand(4000, dtype=torch.float64, generator=generator)
        residuals = fitted(c.expand(4000, -1)).residuals(z, u)
        for d in range(1 + bool(c[1])):
            assert kstest(residuals[:, d], "uniform").pvalue > 1e-3


def test_residuals_are_uniform(fitted: MixtureOfProducts) -> None:
    _, c, observed = table(2000, 8)
    generator = torch.Generator().manual_seed(0)
    z = fitted(c).sample((), generator)
    residuals = fitted(c).residuals(z, torch.rand(2000, dtype=torch.float64, generator=generator))
    assert kstest(residuals[:, 0], "uniform").pvalue > 1e-3
    both = residuals[observed[:, 1]]
    assert kstest(both[:, 1], "uniform").pvalue > 1e-3
    assert abs(float(torch.corrcoef(both.T)[0, 1])) < 0.1


def test_a_generator_settles_samples(fitted: MixtureOfProducts) -> None:
    _, c, _ = table(20, 9)
    one, two = (fitted(c).sample((3,), torch.Generator().manual_seed(1)) for _ in range(2))
    assert one.shape == (3, 20, 2)
    assert torch.equal(one, two)


def test_survives_a_file(fitted: MixtureOfProducts) -> None:
    z, c, _ = table(50, 4)
    again = MixtureOfProducts(len(fitted.loc), PRESENT, LEVELS, truncated=fitted.low is not None)
    before = again(c).log_prob(z)
    again.load_state_dict(fitted.state_dict())
    assert torch.equal(again(c).log_prob(z), fitted(c).log_prob(z))
    assert not torch.equal(before, again(c).log_prob(z))


@pytest.mark.parametrize("fit", FITS)
def test_follows_numbers_of_the_context(fit: type) -> None:
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(1500, 1, dtype=torch.float64, generator=generator)
    z = 0.8 * c + 0.6 * torch.randn(1500, 1, dtype=torch.float64, generator=generator)
    seen = torch.ones_like(z, dtype=torch.bool)
    made, _ = fit(z[:500], c[:500], seen[:500], torch.ones(500), [None])
    gain = made(c[500:]).log_prob(z[500:]) - independent(z[500:], seen[500:])
    assert gain.mean() > 0.75 * -math.log(0.6)
    x = torch.linspace(-9, 9, 2001, dtype=torch.float64)[:, None]
    mass = made(c[0]).log_prob(x).exp().sum() * (x[1] - x[0])
    assert float(mass) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("fit", FITS)
def test_weights_count_as_repeated_rows_do(fit: type) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, 1, dtype=torch.float64, generator=generator)
    weight = torch.where(z[:, 0] > 0, 3.0, 1.0)
    made, _ = fit(z, None, torch.ones_like(z, dtype=torch.bool), weight, [None])
    drawn = made().sample((4000,), generator)
    share = float(weight[z[:, 0] > 0].sum() / weight.sum())
    assert float((drawn > 0).double().mean()) == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("fit", FITS)
def test_the_same_seed_gives_the_same_fit(fit: type) -> None:
    z, c, observed = table(150, 5)
    one, two = (fit(z, c, observed, torch.ones(150), PRESENT, LEVELS, seed=3)[0] for _ in range(2))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_takes_few_rows(fit: type, n: int) -> None:
    z, c, observed = table(n, 6)
    made, _ = fit(z, c, observed, torch.ones(n), PRESENT, LEVELS)
    z, c, _ = table(100, 7)
    assert made(c).log_prob(z).isfinite().all()
    assert made(c).sample((2,)).isfinite().all()


def test_a_forest_of_rows_of_very_different_weight_is_fitted_in_silence() -> None:
    z, c, observed = table(300, 0)
    weight = torch.ones(300, dtype=torch.float64)
    weight[:5] = 1e4  # which are in every tree's sample
    found, _ = fit_forest(z, c, observed, weight, PRESENT, LEVELS)
    assert found(c).log_prob(z).isfinite().all()
