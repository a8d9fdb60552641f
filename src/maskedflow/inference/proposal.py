"""A flow that draws from about where an unnormalised posterior is."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from maskedflow.data import Split
from maskedflow.flows import NSF, Flow
from maskedflow.training import (
    ImportanceSample,
    TrainConfig,
    VariationalConfig,
    fit,
    fit_posterior,
    importance_sample,
)
from maskedflow.training.posterior import LogDensity

from .density import Front
from .prior import Prior
from .support import Support

PARTICLES, MOVES = 4_000, 10
"""The points that go from the prior to the posterior, and their moves at each temperature."""

EFFECTIVE = 0.5
"""The share of effective points that the next temperature leaves."""

ACCEPTED = 0.25
"""The share of moves to be accepted."""

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
    support = Support(prior.low.to(dtype), prior.high.to(dtype))
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
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        made = NSF(prior.features, transforms=3, hidden_features=(50, 50))
    flow = Flow([*Front.fit(u).transforms(), made.transform], made.base)
    held = len(u) // 10
    fit(flow, Split(u[held:], checked=True), Split(u[:held], checked=True), LIKELIHOOD)
    weighed = importance_sample(flow, log_density, DRAWS, generator)
    if weighed.ess < GOOD * DRAWS:
        fit_posterior(flow, log_density, DIVERGENCE, generator)
        weighed = importance_sample(flow, log_density, DRAWS, generator)
    whole = Flow([support, flow.transform], flow.base).requires_grad_(False)
    return whole(), ImportanceSample(line.inv(weighed.x), weighed.log_weights)


def tempered(
    u: Tensor, log_prior: LogDensity, log_density: LogDensity, generator: torch.Generator
) -> Tensor:
    r"""Brings draws of a prior to a posterior by sequential Monte Carlo.

    .. math:: p_\beta(u) \propto p(u) \, (\tilde p(u) / p(u))^\beta, \quad 0 \le \beta \le 1

    Each :math:`\beta` is the largest that leaves half of the points effective, which are then
    resampled and moved by Metropolis's algorithm, with the points' own covariance.

    Args:
        u: Draws of the prior p, with shape (n, D).
        log_prior: The logarithm of p.
        log_density: The logarithm of :math:`\tilde p`, not normalised.
        generator: Where everything random comes from.

    Returns:
        As many points, of about the posterior.

    References:
        An adaptive sequential Monte Carlo method (Del Moral et al., 2012), section 3
        https://doi.org/10.1007/s11222-011-9271-y
    """
    beta, length = 0.0, 2.38 / math.sqrt(u.shape[1])
    log_p = log_prior(u)
    log_ratio = log_density(u) - log_p
    while beta < 1:
        before, beta = beta, _next(log_ratio, beta)
        weights = ((beta - before) * log_ratio).double().softmax(dim=0)
        kept = torch.multinomial(weights, len(u), replacement=True, generator=generator)
        u, log_p, log_ratio = u[kept], log_p[kept], log_ratio[kept]
        spread = torch.linalg.cholesky_ex(torch.atleast_2d(u.T.cov()))[0]
        for _ in range(MOVES):
            step = torch.randn(u.shape, dtype=u.dtype, generator=generator) @ spread.T
            moved = u + length * step
            moved_p = log_prior(moved)
            moved_ratio = log_density(moved) - moved_p
            gain = moved_p - log_p + beta * (moved_ratio - log_ratio)
            taken = torch.rand(len(u), generator=generator).log() < gain
            u = torch.where(taken[:, None], moved, u)
            log_p = torch.where(taken, moved_p, log_p)
            log_ratio = torch.where(taken, moved_ratio, log_ratio)
            length *= math.exp(float(taken.double().mean()) - ACCEPTED)
    return u


def _next(log_ratio: Tensor, beta: float) -> float:
    """The largest power up to 1 that leaves enough points effective."""

    def is_enough(power: float) -> bool:
        sample = ImportanceSample(log_ratio, (power - beta) * log_ratio)
        return sample.ess >= EFFECTIVE * len(log_ratio)

    low, high = beta, 1.0
    if is_enough(high):
        return high
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if is_enough(middle) else (low, middle)
    return high
