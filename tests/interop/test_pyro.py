"""Pyro takes our flows as guides and as priors, through its own bridge to zuko's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import maskedflow as mf

pyro = pytest.importorskip("pyro")

NOISE = 0.5


def posterior(design: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean, covariance and log-evidence of z ~ N(0, I) given y ~ N(X z, 0.25)."""
    precision = torch.eye(design.shape[1]) + design.T @ design / NOISE**2
    covariance = torch.linalg.inv(precision)
    marginal = torch.distributions.MultivariateNormal(
        torch.zeros(len(y)), design @ design.T + NOISE**2 * torch.eye(len(y))
    )
    return covariance @ design.T @ y / NOISE**2, covariance, marginal.log_prob(y).item()


def test_snippet_finds_posterior_and_evidence(snippet: Callable[[str], dict[str, Any]]) -> None:
    names = snippet("Pyro")
    mean, covariance, log_z = posterior(names["design"], names["observed"])
    samples = names["samples"]
    torch.testing.assert_close(samples.mean(dim=0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(samples.T.cov(), covariance, atol=0.04, rtol=0.1)
    last = names["losses"][-100:]
    assert -sum(last) / len(last) == pytest.approx(log_z, abs=0.03)


@pytest.mark.parametrize("kind", [mf.flows.MAF, mf.flows.IAF, mf.flows.NSF])
def test_a_guide_given_data_in_a_plate(kind: Any) -> None:
    """Amortized: z_i ~ N(0, I), y_i ~ N(A z_i, 0.25), and q(z_i | y_i) is a flow given y_i."""
    from pyro.contrib.zuko import ZukoToPyro
    from pyro.distributions import Normal

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    design = torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]])
    y = torch.randn(256, 2) @ design.T + NOISE * torch.randn(256, 3)
    flow = kind(2, context=3, transforms=2, hidden_features=(32, 32))

    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", Normal(0.0, 1.0).expand([2]).to_event(1))
            pyro.sample("y", Normal(z @ design.T, NOISE).to_event(1), obs=y)

    def guide(y: Tensor) -> None:
        pyro.module("flow", flow)
        with pyro.plate("data", len(y)):
            pyro.sample("z", ZukoToPyro(flow(y)))

    adam = pyro.optim.ClippedAdam({"lr": 0.01, "lrd": 0.995})
    svi = pyro.infer.SVI(model, guide, adam, pyro.infer.Trace_ELBO())
    losses = [svi.step(y) for _ in range(500)]

    precision = torch.eye(2) + design.T @ design / NOISE**2
    covariance = torch.linalg.inv(precision)
    mean = y @ design @ covariance / NOISE**2
    with torch.no_grad():
        samples = flow(y).sample((500,))
    scale = covariance.diagonal().sqrt()
    assert ((samples.mean(dim=0) - mean) / scale).square().mean().sqrt() < 0.25
    assert (samples.std(dim=0) / scale - 1).square().mean().sqrt() < 0.15
    evidence = torch.distributions.MultivariateNormal(
        torch.zeros(3), design @ design.T + NOISE**2 * torch.eye(3)
    ).log_prob(y)
    assert sum(losses[-50:]) / 50 + evidence.sum().item() < 0.1 * len(y)


def test_a_draw_is_scored_in_the_same_pass_and_has_gradients() -> None:
    from pyro.contrib.zuko import ZukoToPyro

    flow = mf.flows.MAF(3, hidden_features=(8,)).double()
    wrapped = ZukoToPyro(flow())
    assert wrapped.has_rsample
    with pyro.plate("points", 5):
        x = pyro.sample("x", wrapped)
    assert x.shape == (5, 3)
    assert x.requires_grad
    torch.testing.assert_close(wrapped.expand([5]).log_prob(x), flow().log_prob(x))
    with pyro.plate("rows", 4), pyro.plate("columns", 2):
        x = pyro.sample("y", ZukoToPyro(mf.flows.GMM(2)()))
    assert x.shape == (2, 4, 2)
    trace = pyro.poutine.trace(lambda: pyro.sample("x", ZukoToPyro(flow()))).get_trace()
    total = trace.log_prob_sum()
    torch.testing.assert_close(total, flow().log_prob(trace.nodes["x"]["value"]))


def test_a_flow_is_a_prior() -> None:
    """A normal by a flow, observed with noise: a guide of normals can be the posterior."""
    from pyro.contrib.zuko import ZukoToPyro
    from pyro.distributions import Normal

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    first = mf.transforms.Standardize(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    flow = mf.flows.Flow([first], mf.flows.MAF(2).base)

    def model() -> None:
        z = pyro.sample("z", ZukoToPyro(flow()))
        pyro.sample("y", Normal(z, 1.0).to_event(1), obs=torch.zeros(2))

    def guide() -> None:
        loc = pyro.param("loc", torch.zeros(2))
        log_scale = pyro.param("log_scale", torch.zeros(2))
        pyro.sample("z", Normal(loc, log_scale.exp()).to_event(1))

    elbo = pyro.infer.Trace_ELBO(num_particles=32, vectorize_particles=True)
    adam = pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99})
    svi = pyro.infer.SVI(model, guide, adam, elbo)
    for _ in range(400):
        svi.step()
    store = pyro.get_param_store()
    torch.testing.assert_close(store["loc"], torch.tensor([0.5, 0.2]), atol=0.02, rtol=0)
    scale = torch.tensor([1 / math.sqrt(2), 3 / math.sqrt(10)])
    torch.testing.assert_close(store["log_scale"].exp(), scale, atol=0.02, rtol=0)
