"""Draws of one distribution, picked from those of another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from maskedflow.distributions.base import draw_and_log_prob

MOST = 100_000
"""Draws that are made at once."""


def resample(
    proposal: Distribution,
    log_density: Callable[[Tensor], Tensor],
    n: int,
    among: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Sampling-importance-resampling: each draw is one of several of a proposal's.

    It is picked with probabilities in proportion to :math:`w = \tilde p / q`. Draws are independent
    of each other, and their distribution tends to p as `among` grows.

    Args:
        proposal: The distribution q.
        log_density: The logarithm of :math:`\tilde p`, of points with shape (m, D).
        n: The number of draws.
        among: How many of the proposal's each is one of.
        generator: Where draws come from.

    Returns:
        The draws, with shape (n, D).

    References:
        Using the SIR algorithm to simulate posterior distributions (Rubin, 1988)

    Example:
        >>> from maskedflow.distributions import DiagNormal
        >>> q = DiagNormal(torch.zeros(1), 2 * torch.ones(1))
        >>> def log_density(x):
        ...     return -0.5 * (x - 1).square().sum(dim=-1)
        >>> x = resample(q, log_density, 2000, 50, torch.Generator().manual_seed(0))
        >>> bool((x.mean() - 1).abs() < 0.1), bool((x.std() - 1).abs() < 0.1)
        (True, True)
    """
    found = []
    with torch.no_grad():
        for rows in torch.arange(n).split(max(1, MOST // among)):
            x, log_q = draw_and_log_prob(proposal, (len(rows), among), generator)
            log_p = log_density(x.flatten(0, 1)).reshape(log_q.shape)
            weights = (log_p - log_q).softmax(dim=1)
            picked = torch.multinomial(weights, 1, generator=generator)
            found.append(x[torch.arange(len(rows)), picked[:, 0]])
    return torch.cat(found)
