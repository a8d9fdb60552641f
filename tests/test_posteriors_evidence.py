"""Evidence, information, weights and combinations, beside the closed forms of Gaussians."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import chi2, genpareto
from torch import Tensor
from torch.distributions import MultivariateNormal

import maskedflow as mf
from maskedflow.distributions import BoxUniform, DiagNormal
from maskedflow.posteriors import (
    NamedDensity,
    Product,
    WeightedSample,
    combine,
    harmonic_evidence,
    importance_evidence,
    information,
    marginal,
    psis,
    reweight,
    tension,
)

#: A linear model of three parameters: prior N(0, 2^2), likelihoods N(MEAN, COVARIANCE).
PRIOR = MultivariateNormal(torch.zeros(3).double(), 4 * torch.eye(3).double())
FACTOR = torch.tensor([[0.6, 0, 0], [0.4, 0.5, 0], [-0.2, 0.3, 0.8]], dtype=torch.float64)
MEAN = torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64)
LIKELIHOOD = MultivariateNormal(MEAN, FACTOR @ FACTOR.T)
OTHER = MultivariateNormal(torch.tensor([1.2, 0.4, -0.8]).double(), torch.eye(3).double())


def product(*parts: MultivariateNormal) -> MultivariateNormal:
    precision = sum(part.precision_matrix for part in parts)
    covariance = torch.linalg.inv(precision)
    mean = covariance @ sum(part.precision_matrix @ part.mean for part in parts)
    return MultivariateNormal(mean, (covariance + covariance.T) / 2)


def log_integral(*parts: MultivariateNormal) -> float:
    """The logarithm of the integral of a product of Gaussian densities."""
    whole = product(*parts)
    at = whole.mean
    return float(sum(part.log_prob(at) for part in parts) - whole.log_prob(at))


POSTERIOR = product(PRIOR, LIKELIHOOD)
SECOND = product(PRIOR, OTHER)
LOG_Z = log_integral(PRIOR, LIKELIHOOD)


def kl(one: MultivariateNormal, other: MultivariateNormal) -> float:
    return float(torch.distributions.kl_divergence(one, other))


def dimensionality(posterior: MultivariateNormal, prior: MultivariateNormal) -> float:
    """Twice the variance of log posterior over prior, a quadratic form of Gaussian numbers."""
    form = prior.precision_matrix - posterior.precision_matrix
    slope = prior.precision_matrix @ (posterior.mean - prior.mean)
    covariance = posterior.covariance_matrix
    variance = 0.5 * (form @ covariance @ form @ covariance).trace() + slope @ covariance @ slope
    return float(2 * variance)


def log_target(x: Tensor) -> Tensor:
    return PRIOR.log_prob(x) + LIKELIHOOD.log_prob(x)


def gaussian_flow() -> mf.flows.Flow:
    """A flow that is nearly the posterior: an affine one, started there."""
    torch.manual_seed(0)
    flow = mf.flows.MAF(3, transforms=1, hidden_features=(16,)).double()
    front = mf.transforms.Standardize(POSTERIOR.mean, POSTERIOR.stddev)
    whole = mf.flows.Flow([front, *flow.transform.transforms], flow.base)
    x = POSTERIOR.sample((3000,))
    config = mf.training.TrainConfig(epochs=30, batch_size=300, lr=1e-2, schedule="cosine")
    mf.training.fit(whole, mf.data.Split(x[500:]), mf.data.Split(x[:500]), config)
    return whole


@pytest.fixture(scope="module")
def flow() -> mf.flows.Flow:
    return gaussian_flow()


def test_evidence_by_importance_sampling(flow: mf.flows.Flow) -> None:
    for smooth in (False, True):
        found = importance_evidence(log_target, flow, 4000, smooth=smooth)
        assert abs(found.log_z - LOG_Z) < 4 * found.standard_error < 0.05
        assert found.is_trusted
        assert found.ess > 3000


def test_evidence_by_the_learned_harmonic_mean(flow: mf.flows.Flow) -> None:
    torch.manual_seed(1)
    x = POSTERIOR.sample((8000,))
    found = harmonic_evidence(x, log_target(x), flow)
    assert abs(found.log_z - LOG_Z) < 4 * found.standard_error < 0.1
    assert found.is_trusted
    called = harmonic_evidence(x, log_target, flow, temperature=0.6)
    assert abs(called.log_z - LOG_Z) < 4 * called.standard_error < 0.1
    # The mean of chains is that of all samples, and its error that of chains.
    chains = harmonic_evidence(x.reshape(20, 400, 3), log_target(x).reshape(20, 400), flow)
    assert chains.log_z == pytest.approx(found.log_z)
    assert 0.4 < chains.standard_error / found.standard_error < 2.5


def test_standard_errors_are_those_of_repetitions(flow: mf.flows.Flow) -> None:
    torch.manual_seed(2)
    scores: dict[str, list[float]] = {"harmonic": [], "importance": [], "weighted": []}
    for seed in range(60):
        x = POSTERIOR.sample((500,))
        found = harmonic_evidence(x, log_target(x), flow)
        scores["harmonic"].append((found.log_z - LOG_Z) / found.standard_error)
        found = importance_evidence(log_target, flow, 500, seed=seed)
        scores["importance"].append((found.log_z - LOG_Z) / found.standard_error)
        y = PRIOR.sample((4000,))
        weights = LIKELIHOOD.log_prob(y).exp()
        found = harmonic_evidence(y, log_target(y), flow, weights=weights)
        scores["weighted"].append((found.log_z - LOG_Z) / found.standard_error)
    for name, values in scores.items():
        assert 0.7 < torch.tensor(values).square().mean().sqrt() < 1.4, name


def test_a_chain_with_copies_is_that_chain_with_weights(flow: mf.flows.Flow) -> None:
    x = POSTERIOR.sample((500,))
    counts = torch.randint(1, 4, (500,))
    copied = harmonic_evidence(x.repeat_interleave(counts, dim=0), log_target, flow)
    weighted = harmonic_evidence(x, log_target, flow, weights=counts)
    assert copied.log_z == pytest.approx(weighted.log_z)


def test_what_cannot_be_trusted_is_said(flow: mf.flows.Flow) -> None:
    narrow = DiagNormal(POSTERIOR.mean, 0.2 * POSTERIOR.stddev)
    with pytest.warns(UserWarning, match="log Z cannot be trusted.* make it wider"):
        found = importance_evidence(log_target, narrow, 2000)
    assert not found.is_trusted
    x = POSTERIOR.sample((2000,))
    shifted = mf.flows.Flow(
        mf.transforms.Standardize(POSTERIOR.mean + 3, 2 * POSTERIOR.stddev), flow.base
    )
    with pytest.warns(UserWarning, match="lower the temperature"):
        harmonic_evidence(x, log_target(x), shifted)
    with pytest.warns(UserWarning, match="the two are too far apart"):
        reweight(POSTERIOR, MultivariateNormal(MEAN + 4, torch.eye(3).double()), POSTERIOR, n=500)


def test_psis_is_that_of_a_pareto_distribution() -> None:
    for k in (0.2, 0.5, 0.9):
        found = []
        for seed in range(20):
            weights = genpareto.rvs(k, size=4000, random_state=seed) + 1e-3
            smoothed, khat = psis(torch.from_numpy(weights).log())
            found.append(khat)
            assert smoothed.max() <= math.log(weights.max()) + 1e-12
            assert (smoothed[weights.argsort()].diff() >= 0).all()
        assert abs(sum(found) / 20 - k) < 0.1
    assert psis(torch.zeros(100))[1] == -math.inf
    for few in (torch.tensor([0.0, 1.0, 2.0]), torch.tensor([-7.0])):
        smoothed, khat = psis(few)
        assert khat == math.inf
        torch.testing.assert_close(smoothed, few.double())


def test_psis_is_that_of_arviz() -> None:
    i = torch.arange(1000, dtype=torch.float64)
    log_weights = 2 * (i**2).sin() + (3.7 * i).cos()
    for scale, expected in ((1.0, -0.4685440288754138), (3.0, 0.030060648894507283)):
        assert psis(scale * log_weights)[1] == pytest.approx(expected, abs=1e-9)  # 0.23.4


def test_smoothed_weights_have_less_variance() -> None:
    truth, plain, smooth = 1.0, [], []
    for seed in range(100):
        z = torch.randn(500, generator=torch.Generator().manual_seed(seed)).double()
        log_weights = 1.6 * z - 1.6**2 / 2  # whose mean is one
        plain.append(log_weights.exp().mean() - truth)
        smooth.append(psis(log_weights)[0].exp().mean() - truth)
    assert torch.stack(smooth).square().mean() < torch.stack(plain).square().mean()


def test_information_is_that_of_gaussians() -> None:
    found = information(POSTERIOR, PRIOR, n=20_000)
    assert abs(found.kl - kl(POSTERIOR, PRIOR)) < 4 * found.kl_standard_error < 0.05
    error = found.dimensionality_standard_error
    assert abs(found.dimensionality - dimensionality(POSTERIOR, PRIOR)) < 4 * error < 0.4

    box = BoxUniform(torch.full((3,), -20.0).double(), torch.full((3,), 20.0).double())
    flat = information(POSTERIOR, box, n=20_000)
    assert abs(flat.dimensionality - 3) < 4 * flat.dimensionality_standard_error
    expected = 3 * math.log(40) - float(POSTERIOR.entropy())
    assert abs(flat.kl - expected) < 4 * flat.kl_standard_error


def test_information_of_weighted_samples() -> None:
    torch.manual_seed(0)
    kls, dimensions = [], []
    for _ in range(40):
        x = PRIOR.sample((4000,))
        weights = LIKELIHOOD.log_prob(x).exp()
        found = information(POSTERIOR, PRIOR.log_prob, samples=x, weights=weights)
        kls.append((found.kl - kl(POSTERIOR, PRIOR)) / found.kl_standard_error)
        error = found.dimensionality_standard_error
        dimensions.append((found.dimensionality - dimensionality(POSTERIOR, PRIOR)) / error)
        assert found.ess < 1000
    for scores in (kls, dimensions):
        assert 0.7 < torch.tensor(scores).square().mean().sqrt() < 1.5


def test_another_prior() -> None:
    narrow = MultivariateNormal(torch.ones(3).double(), torch.eye(3).double())
    truth = product(narrow, LIKELIHOOD)
    found = reweight(POSTERIOR, narrow, PRIOR, n=20_000, columns=["a", "b", "c"])
    assert found.columns == ("a", "b", "c")
    torch.testing.assert_close(found.mean, truth.mean, atol=0.03, rtol=0)
    torch.testing.assert_close(found.std, truth.stddev, atol=0.03, rtol=0)
    expected = log_integral(narrow, LIKELIHOOD) - LOG_Z
    assert abs(found.log_z - expected) < 4 * found.standard_error
    picked = found.smoothed().resample(20_000)
    torch.testing.assert_close(picked.mean(dim=0), truth.mean, atol=0.04, rtol=0)


def test_another_likelihood_of_weighted_samples() -> None:
    torch.manual_seed(0)
    x = PRIOR.sample((40_000,))
    log_first, log_second = LIKELIHOOD.log_prob(x), OTHER.log_prob(x)
    found = reweight(x, log_second, log_first, weights=log_first.exp())
    assert found.columns == ("x0", "x1", "x2")
    torch.testing.assert_close(found.mean, SECOND.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(found.std, SECOND.stddev, atol=0.05, rtol=0)


def test_a_density_is_fitted_to_weighted_samples() -> None:
    x = torch.linspace(-6, 6, 12_001, dtype=torch.float64)[:, None]
    sample = WeightedSample(x, -0.5 * (x[:, 0] - 1).square(), ("a",))
    density = sample.fit()
    assert density.columns == ("a",)
    assert not density.exact
    truth = DiagNormal(torch.ones(1).double(), torch.ones(1).double())
    rows = truth.sample((3000,))
    assert (truth.log_prob(rows) - density.log_prob(rows)).mean() < 0.02


def test_two_experiments_are_one() -> None:
    found = combine(POSTERIOR, SECOND, PRIOR, n=20_000)
    truth = product(PRIOR, LIKELIHOOD, OTHER)
    torch.testing.assert_close(found.mean, truth.mean, atol=0.03, rtol=0)
    torch.testing.assert_close(found.std, truth.stddev, atol=0.03, rtol=0)
    log_r = log_integral(PRIOR, LIKELIHOOD, OTHER) - LOG_Z - log_integral(PRIOR, OTHER)
    assert abs(found.log_z - log_r) < 4 * found.standard_error < 0.1

    # A proposal that is the truth has equal weights.
    exact = combine(POSTERIOR, SECOND, PRIOR, proposal=truth, n=100)
    assert exact.log_z == pytest.approx(log_r)
    assert exact.ess == pytest.approx(100)
    far = MultivariateNormal(torch.full((3,), 8.0).double(), 0.1 * torch.eye(3).double())
    with pytest.warns(UserWarning, match="take a flow that is fitted to their Product"):
        combine(POSTERIOR, far, PRIOR, n=1000)


def test_tension_of_gaussians() -> None:
    found = tension(POSTERIOR, SECOND, PRIOR, n=20_000)
    truth = product(PRIOR, LIKELIHOOD, OTHER)
    log_r = log_integral(PRIOR, LIKELIHOOD, OTHER) - LOG_Z - log_integral(PRIOR, OTHER)
    log_s = log_r - kl(POSTERIOR, PRIOR) - kl(SECOND, PRIOR) + kl(truth, PRIOR)
    assert abs(found.log_r - log_r) < 4 * found.log_r_standard_error
    assert abs(found.log_s - log_s) < 4 * found.log_s_standard_error < 0.2
    first, second, both = (dimensionality(one, PRIOR) for one in (POSTERIOR, SECOND, truth))
    assert abs(found.dimensionality - (first + second - both)) < 0.3
    expected = chi2.sf(found.dimensionality - 2 * found.log_s, found.dimensionality)
    assert found.p_value == pytest.approx(expected)


def test_a_product_is_fitted_and_proposes() -> None:
    target = Product(NamedDensity.of(POSTERIOR, ["a", "b", "c"]), SECOND, PRIOR)
    flow = mf.flows.MAF(3, transforms=2, hidden_features=(16,)).double()
    config = mf.training.VariationalConfig(steps=150, batch_size=128, lr=0.02)
    generator = torch.Generator().manual_seed(0)
    mf.training.fit_posterior(flow, target, config, generator)
    found = combine(target.first, SECOND, PRIOR, proposal=flow, n=2000)
    assert found.columns == ("a", "b", "c")
    assert found.ess > 1500


def test_experiments_share_some_parameters() -> None:
    first = NamedDensity.of(POSTERIOR, ["a", "b", "c"])
    other = NamedDensity.of(SECOND, ["c", "b", "z"])
    shared = [marginal(one, ["b", "c"]) for one in (first, other)]
    prior = MultivariateNormal(torch.zeros(2).double(), 4 * torch.eye(2).double())
    assert combine(*shared, prior, n=2000).columns == ("b", "c")
    with pytest.raises(ValueError, match="columns: expected some of c, b, z, got 'a'"):
        combine(first, other, PRIOR)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: harmonic_evidence(
                torch.zeros(5, 2), torch.zeros(5), mf.flows.MAF(2), temperature=2
            ),
            r"temperature: expected a number in \(0, 1\], got 2",
        ),
        (
            lambda: harmonic_evidence(torch.zeros(5, 3), torch.zeros(5), POSTERIOR),
            "flow: expected a normalizing flow",
        ),
        (
            lambda: harmonic_evidence(torch.zeros(5), torch.zeros(5), mf.flows.MAF(1)),
            r"samples: expected shape \(n, features\), got \(5,\)",
        ),
        (
            lambda: harmonic_evidence(torch.zeros(5, 2), torch.zeros(4), mf.flows.MAF(2)),
            r"log_density: expected shape \(5,\), got \(4,\)",
        ),
        (
            lambda: information(POSTERIOR, BoxUniform(torch.zeros(3), torch.ones(3))),
            "prior: expected a density above zero at each sample, got zero at",
        ),
        (
            lambda: reweight(torch.zeros(5, 2), torch.full((5,), math.nan), torch.zeros(5)),
            "new: expected a number at row 0, got nan",
        ),
        (
            lambda: reweight(torch.zeros(5, 2), torch.zeros(5), torch.full((5,), -math.inf)),
            "old: expected a density above zero at each sample, got zero at row 0",
        ),
        (
            lambda: reweight(torch.zeros(5), torch.zeros(5), torch.zeros(5)),
            r"samples: expected shape \(n, features\)",
        ),
        (
            lambda: reweight(
                torch.zeros(5, 2), torch.zeros(5), torch.zeros(5), weights=-torch.ones(5)
            ),
            "weights: expected 5 numbers from 0 on",
        ),
    ],
)
def test_mistakes_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_anything_with_draws_and_a_log_density_will_do() -> None:
    thing = SimpleNamespace(sample=POSTERIOR.sample, log_prob=POSTERIOR.log_prob)
    found = information(thing, PRIOR, n=2000)
    assert abs(found.kl - kl(POSTERIOR, PRIOR)) < 5 * found.kl_standard_error
