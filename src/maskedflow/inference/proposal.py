"""A flow that draws from about where an unnormalised posterior is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from maskedflow.data import Split
from maskedflow.flows import NSF, Flow
from maskedflow.mcmc.smc import tempered
from maskedflow.training import (
    ImportanceSample,
    Ranks,
    TrainConfig,
    VariationalConfig,
    fit,
    fit_posterior,
    importance_sample,
)
from maskedflow.training.posterior import LogDensity
from maskedflow.transforms import Probit

from .density import Front
from .prior import Prior

PARTICLES = 4_000
"""The points that go from the prior to the posterior."""

DRAWS, GOOD = 10_000, 0.3
"""The draws by which a proposal is weighed, and the share of effective ones that is good."""

LIKELIHOOD = TrainConfig(
    epochs=30, batch_size=100, lr=5e-3, weight_decay=1e-3, schedule="cosine", patience=30
)
DIVERGENCE = VariationalConfig(steps=300, lr=2e-3)


def fit_proposal(
    prior: Prior, potential: LogDensity, dtype: torch.dtype, generator: torch.Generator
) -> tuple[Distribution, ImportanceSample]:
    """Fits a flow to an unnormalised posterior.

    It is trained on points that sequential Monte Carlo brings there from the prior, by maximum
    likelihood, so that it has all modes that these have found. Where that is not near enough, the
    reverse divergence brings it nearer.

    Args:
        prior: The prior.
        potential: The logarithm of the posterior, not normalised, of parameters (n, D).
        dtype: The precision of parameters.
        generator: Where everything random comes from.

    Returns:
        The flow's distribution, and draws of it with their weights.
    """
    support = Probit(prior.low.to(dtype), prior.high.to(dtype))
    line = support()

    def log_density(u: Tensor) -> Tensor:
        theta, ladj = line.inverse_and_ladj(u)
        found: Tensor = potential(theta) + ladj
        return found

    def log_prior(u: Tensor) -> Tensor:
        theta, ladj = line.inverse_and_ladj(u)
        found: Tensor = prior.log_prob(theta) + ladj
        return found

    with torch.no_grad():
        start = line(support.inside(prior.sample((PARTICLES,), generator).to(dtype)))
        u = tempered(start, log_prior, log_density, generator)
    made = NSF(prior.features, transforms=3, hidden_features=(50, 50), generator=generator)
    flow = Flow([*Front.fit(u).transforms(), made.transform], made.base)
    held = len(u) // 10
    parts = Split(u[held:], checked=True), Split(u[:held], checked=True)
    fit(flow, *parts, LIKELIHOOD, ranks=Ranks(alone=True))
    weighed = importance_sample(flow, log_density, DRAWS, generator)
    if weighed.ess < GOOD * DRAWS:
        fit_posterior(flow, log_density, DIVERGENCE, generator)
        weighed = importance_sample(flow, log_density, DRAWS, generator)
    whole = Flow([support, flow.transform], flow.base).requires_grad_(False)
    return whole(), ImportanceSample(line.inv(weighed.x), weighed.log_weights)
