"""Sequential Monte Carlo: many points go from one density to another, by way of those between."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maskedflow.training import ImportanceSample
from maskedflow.training.posterior import LogDensity

MOVES = 10
"""The moves of each point at each temperature."""

EFFECTIVE = 0.5
"""The share of effective points that the next temperature leaves."""

ACCEPTED = 0.25
"""The share of moves to be accepted."""


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
