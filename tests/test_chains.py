"""What the draws of Markov chains are worth: effective sample sizes and R-hat."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskedflow.mcmc import Chains


def chains(samples: Tensor) -> Chains:
    draws, number = samples.shape[:2]
    return Chains(samples, torch.zeros(draws, number), torch.ones(number), draws * number, 0)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("slope", [0.0, 0.6, 0.9, -0.5])
def test_effective_sample_size_of_an_autoregression(slope: float) -> None:
    """Its correlations are powers of the slope: ESS / n = (1 - slope) / (1 + slope)."""
    x, number = noise(4000, 16), 16
    x[0] /= (1 - slope**2) ** 0.5
    for t in range(1, len(x)):
        x[t] += slope * x[t - 1]
    found = chains(x[..., None]).ess().item()
    assert found == pytest.approx(4000 * number * (1 - slope) / (1 + slope), rel=0.08)


def test_each_feature_has_its_own() -> None:
    x = noise(1000, 8, 3)
    for t in range(1, len(x)):
        x[t, :, 1] += 0.9 * x[t - 1, :, 1]
    x[:, :, 2] = x[:, :, 0].exp()  # ranks do not change
    slow = chains(x)
    assert slow.ess().shape == slow.rhat().shape == (3,)
    assert slow.ess()[1] < 0.1 * slow.ess()[0]
    torch.testing.assert_close(slow.ess()[2], slow.ess()[0])
    assert torch.equal(chains(x.float()).samples, x.float())


def test_chains_in_different_modes_are_found_out() -> None:
    x = noise(500, 8, 1)
    assert chains(x).rhat().item() < 1.01
    apart = x.clone()
    apart[:, :3] += 10
    assert chains(apart).rhat().item() > 1.5
    assert chains(apart).ess().item() < 30


def test_chains_that_drift_or_have_different_scales_are_found_out() -> None:
    x = noise(500, 8, 1)
    assert chains(x + torch.linspace(0, 3, 500)[:, None, None]).rhat().item() > 1.1  # halves differ
    wide = x.clone()
    wide[:, :2] *= 4
    assert chains(wide).rhat().item() > 1.05  # the means are the same


def test_heavy_tails_are_no_matter() -> None:
    cauchy = torch.tan(torch.pi * (torch.special.ndtr(noise(1000, 4, 1)) - 0.5))
    assert chains(cauchy).rhat().item() < 1.01
    assert chains(cauchy).ess().item() == pytest.approx(4000, rel=0.15)


def test_no_draws_and_no_variation() -> None:
    assert chains(torch.ones(20, 4, 1)).rhat().isnan().all()
    assert chains(torch.ones(20, 4, 1)).ess().isnan().all()
    assert chains(torch.arange(4.0).expand(20, 4)[..., None]).rhat().item() == torch.inf
    with pytest.raises(ValueError, match="samples: expected at least 8 draws, got 7"):
        chains(noise(7, 4, 1)).ess()
    with pytest.raises(ValueError, match="samples: expected at least 8 draws, got 7"):
        chains(noise(7, 4, 1)).rhat()
