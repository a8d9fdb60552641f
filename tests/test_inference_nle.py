"""Posteriors from likelihoods: exact cases, several observations, modes, and errors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, Uniform

import maskedflow as mf
from generators import generator
from maskedflow.inference import LikelihoodPosterior, Prior
from maskedflow.inference.proposal import fit_proposal
from maskedflow.inference.resampling import resample
from maskedflow.training import TrainConfig

CONFIG = TrainConfig(epochs=12, batch_size=100, lr=5e-3, schedule="cosine")


@pytest.fixture(scope="module")
def posterior() -> LikelihoodPosterior:
    """Of a prior N(0, 4) and noise N(0, 1)."""
    theta = 2 * torch.randn(3000, 1, generator=generator())
    x = theta + torch.randn(3000, 1, generator=generator(1))
    return mf.NLE(Normal(torch.zeros(1), 2.0), "maf", config=CONFIG).fit(theta, x)


def test_conjugate_gaussian_is_recovered_from_several_observations(
    posterior: LikelihoodPosterior,
) -> None:
    x = torch.tensor([[1.0], [2.0], [0.5], [1.3]])
    precision = 1 / 4 + len(x)
    mean, std = x.sum().item() / precision, precision**-0.5
    drawn = posterior.sample((3000,), x=x, generator=generator())
    assert abs(drawn.mean().item() - mean) < 0.08
    assert abs(drawn.std().item() - std) < 0.05
    log_prob = posterior.log_prob(drawn[:200], x=x)
    exact = Normal(mean, std).log_prob(drawn[:200, 0])
    assert (log_prob - exact).abs().mean() < 0.15
    assert abs(posterior.map(x, generator()).item() - mean) < 0.08
    assert posterior.at(x).weighed.ess > 1000


def test_log_prob_is_the_potential_normalised_and_the_same_each_time(
    posterior: LikelihoodPosterior,
) -> None:
    before = torch.get_rng_state()
    x, grid = torch.tensor([0.5]), torch.linspace(-6, 6, 2001)[:, None]
    potential = posterior.potential(grid, x=x)
    expected = posterior.likelihood(grid).log_prob(x) + posterior.prior.log_prob(grid)
    torch.testing.assert_close(potential, expected)
    log_z = potential.logsumexp(dim=0).item() + math.log(12 / 2000)
    weighed = posterior.at(x).weighed
    assert abs(weighed.log_z - log_z) < 4 * weighed.standard_error + 0.01
    torch.testing.assert_close(posterior.log_prob(grid, x=x), potential - weighed.log_z)
    drawn = posterior.sample((5,), x=x, generator=generator())
    posterior.at([0.0])  # the one that is kept
    assert torch.equal(drawn, posterior.sample((5,), x=x, generator=generator()))
    assert torch.equal(before, torch.get_rng_state())


def test_bounds_hold_and_rounds_add_up() -> None:
    prior = Uniform(torch.zeros(1), torch.ones(1))
    theta = torch.rand(500, 1, generator=generator())
    x = theta + 0.3 * torch.randn(500, 1, generator=generator(1))
    nle = mf.NLE(prior, "maf", config=TrainConfig(epochs=2))
    found = nle.fit(theta, x)
    drawn = found.sample((500,), x=[1.2], generator=generator())
    assert bool(((drawn >= 0) & (drawn <= 1)).all())
    assert found.log_prob([[1.5]], x=[1.2]).item() == -math.inf
    nle.fit(drawn, drawn + 0.3 * torch.randn(500, 1, generator=generator(2)), proposal=found)
    assert nle.simulations is not None
    assert len(nle.simulations.theta) == 1000


def test_a_proposal_finds_all_modes_and_the_evidence() -> None:
    """Of 0.3 N(-2, 0.1) + 0.7 N(2, 0.1) in each of two features, of a prior that is wide."""
    prior = Prior(Normal(torch.zeros(2), 3.0))
    log_weights = torch.tensor([0.3, 0.7]).log()

    def potential(theta: Tensor) -> Tensor:
        each = Normal(torch.tensor([-2.0, 2.0]), 0.1).log_prob(theta[..., None])
        log_likelihood: Tensor = (log_weights + each).logsumexp(dim=-1).sum(dim=-1)
        return log_likelihood + prior.log_prob(theta)

    proposal, weighed = fit_proposal(prior, potential, torch.float32, generator())
    each = Normal(0.0, math.hypot(3.0, 0.1)).log_prob(torch.tensor(2.0)).item()
    assert abs(weighed.log_z - 2 * each) < 4 * weighed.standard_error + 1e-3
    drawn = resample(proposal, potential, 4000, 50, generator(1))
    shares = (drawn > 0).double().mean(dim=0)
    torch.testing.assert_close(shares, torch.full((2,), 0.7).double(), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1.0, 2.0], r"x: expected one or more observations, of shape \(1,\) or \(n, 1\), got"),
        ([math.nan], "x: expected finite numbers, got nan or inf in the observation"),
    ],
)
def test_observations_that_do_not_fit(posterior: LikelihoodPosterior, x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        posterior.potential(torch.zeros(1), x=x)


def test_data_have_to_be_vectors() -> None:
    with pytest.raises(ValueError, match=r"^x: expected shape \(n, features\), got \(5, 2, 2\)"):
        mf.NLE(Normal(torch.zeros(1), 1.0)).fit(torch.zeros(5, 1), torch.zeros(5, 2, 2))


def test_counts_have_no_density_until_there_is_noise() -> None:
    theta = 1 + torch.rand(200, 1, generator=generator())
    x = torch.poisson(theta, generator=generator())
    nle = mf.NLE(Uniform(torch.ones(1), 2 * torch.ones(1)), "maf", config=CONFIG)
    with pytest.warns(UserWarning, match="^x: most numbers of column 0 are there more") as caught:
        nle.fit(theta, x)
    assert caught[0].filename == __file__
    nle.fit(theta, x + torch.rand(x.shape, generator=generator(1)))  # no warning


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_likelihood_is_saved_and_read_with_another_prior(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    path, prior = tmp_path / "likelihood.safetensors", Uniform(torch.zeros(2), torch.ones(2))
    theta = torch.rand(200, 2, generator=generator()).to(dtype)
    x = theta.repeat(1, 2)[:, :3] + torch.randn(200, 3, generator=generator(1)).to(dtype)
    found = mf.NLE(prior, "maf", ensemble=2, config=CONFIG).fit(theta, x)
    found.save(path)
    assert torch.equal(
        mf.NLE(prior, "maf").load(path).potential(theta, x[:2]), found.potential(theta, x[:2])
    )
    wider = mf.NLE(Uniform(-torch.ones(2), torch.ones(2)), "maf").load(path)
    moved = found.potential(theta, x[0]) - wider.potential(theta, x[0])
    torch.testing.assert_close(moved, torch.full((200,), math.log(4), dtype=dtype))
    with pytest.raises(ValueError, match="not a density of this flow"):
        mf.NLE(prior, "nsf").load(path)
    with pytest.raises(ValueError, match="expected a likelihood of 1 parameters, got one of 2"):
        mf.NLE(Normal(torch.zeros(1), 1.0), "maf").load(path)
    with pytest.raises(ValueError, match="not a density of this flow"):
        mf.NPE(prior, "maf").load(path)
