"""Where a density is highest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from maskedflow.distributions.base import draw
from maskedflow.training.config import cosine
from maskedflow.transforms import Probit

from .prior import Prior

DRAWS, STARTS, STEPS, RATE = 1000, 10, 100, 0.1
"""The draws, the best of which are started from, the steps of Adam, and the first one's length."""


def find_mode(
    distribution: Distribution, prior: Prior, generator: torch.Generator | None = None
) -> Tensor:
    """Gradient ascent of a log-density from the best of many draws, within a prior's support.

    Steps are taken along the line that bounds are mapped to, in units of the draws' spread there,
    and so never leave it; the density is that in the parameters' own units.

    Args:
        distribution: What draws and has a `log_prob` with gradients, of points with shape (*, D).
        prior: The prior, which has the bounds.
        generator: Where the draws come from.

    Returns:
        The best point that was seen, with shape (D,).
    """
    with torch.no_grad():
        drawn = draw(distribution, (DRAWS,), generator)
        best = distribution.log_prob(drawn).topk(STARTS).indices
    line = Probit(prior.low.to(drawn), prior.high.to(drawn))()
    loc, scale = line(drawn).mean(dim=0), line(drawn).std(dim=0)
    with torch.enable_grad():
        places = ((line(drawn[best]) - loc) / scale).requires_grad_()
        optimizer = torch.optim.Adam([places])
        highest, mode = -torch.inf, drawn[best[0]]
        for step in range(STEPS):
            theta = line.inv(loc + scale * places)
            log_prob = distribution.log_prob(theta)
            value, row = log_prob.detach().max(dim=0)
            if value.item() > highest:
                highest, mode = value.item(), theta[row].detach()
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = RATE * cosine(step / STEPS)
            (-log_prob.sum()).backward()
            optimizer.step()
    return mode
