"""lampe trains our flows as it trains zuko's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import maskedflow as mf

pytest.importorskip("lampe")

DESIGN = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of theta ~ N(0, I), given x ~ N(DESIGN theta, 0.25)."""
    covariance = torch.linalg.inv(torch.eye(2) + 4 * DESIGN.T @ DESIGN)
    return 4 * x @ DESIGN @ covariance, covariance


def simulate(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    theta = torch.randn(n, 2, generator=generator)
    return theta, theta @ DESIGN.T + 0.5 * torch.randn(n, 3, generator=generator)


def test_snippet_finds_the_posterior(snippet: Callable[[str], dict[str, Any]]) -> None:
    names = snippet("lampe")
    mean, covariance = posterior(names["observed"])
    samples = names["samples"]
    assert isinstance(names["estimator"].flow, mf.flows.NSF)
    torch.testing.assert_close(samples.mean(dim=0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(samples.T.cov(), covariance, atol=0.02, rtol=0)
    with torch.no_grad():
        log_prob = names["estimator"](samples[:1000], names["observed"])
    exact = torch.distributions.MultivariateNormal(mean, covariance).log_prob(samples[:1000])
    assert (log_prob - exact).abs().mean() < 0.1


class Embedded(nn.Module):
    """As in lampe's tutorials: the data go through a network first."""

    def __init__(self, build: Any) -> None:
        from lampe.inference import NPE

        super().__init__()
        self.npe = NPE(2, 4, build=build, transforms=3, hidden_features=(32, 32))
        self.embedding = nn.Sequential(nn.Linear(3, 32), nn.ELU(), nn.Linear(32, 4))

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        log_prob: Tensor = self.npe(theta, self.embedding(x))
        return log_prob

    def flow(self, x: Tensor) -> torch.distributions.Distribution:
        distribution: torch.distributions.Distribution = self.npe.flow(self.embedding(x))
        return distribution


@pytest.mark.parametrize("build", [mf.flows.MAF, mf.flows.NSF, mf.flows.RealNVP, mf.flows.IAF])
def test_a_network_embeds_the_data(build: Any) -> None:
    from lampe.diagnostics import expected_coverage_mc
    from lampe.inference import NPELoss
    from lampe.utils import GDStep

    generator = torch.Generator().manual_seed(0)
    estimator = Embedded(build)
    loss, optimizer = NPELoss(estimator), torch.optim.Adam(estimator.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    step = GDStep(optimizer, clip=1.0)
    for _ in range(400):
        step(loss(*simulate(256, generator)))
        schedule.step()
    estimator.eval()

    theta, x = simulate(300, generator)
    mean, covariance = posterior(x)
    with torch.no_grad():
        samples = estimator.flow(x).sample((500,))
    assert samples.shape == (500, 300, 2)
    scale = covariance.diagonal().sqrt()
    assert ((samples.mean(dim=0) - mean) / scale).square().mean().sqrt() < 0.25
    assert (samples.std(dim=0) / scale - 1).square().mean().sqrt() < 0.2

    levels, coverage = expected_coverage_mc(estimator.flow, zip(theta, x, strict=True), n=200)
    assert (levels - coverage).abs().max() < 0.12


def test_one_set_of_parameters_for_many_data() -> None:
    from lampe.inference import NPE

    estimator = NPE(2, 3, build=mf.flows.MAF).double()
    generator = torch.Generator().manual_seed(0)
    theta, x = (part.double() for part in simulate(5, generator))
    table = estimator(theta[:, None], x)
    assert table.shape == (5, 5)
    torch.testing.assert_close(table.diagonal(), estimator(theta, x))
    torch.testing.assert_close(table[2], estimator(theta[2], x))
    table.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in estimator.parameters())
