"""The prior where a posterior is: the proposal of a further round."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from maskedflow.distributions.base import Base, Shape, draw

from .prior import Prior
from .resampling import resample

DRAWS = 10_000
"""Draws of the posterior that tell how high its density is, and of the prior in a batch."""

RESAMPLED = 1024
"""Draws of the posterior, one of which is kept, where the prior hardly ever meets the region."""

RARE = 1e-3
"""The share of the prior's draws below which that is so."""


class TruncatedPrior(Base):
    r"""A prior restricted to the region of highest density of a posterior.

    .. math:: \tilde p(\theta) \propto p(\theta) \, 1[q(\theta \mid x_o) > \tau]

    Within the region it is the prior, so that simulations from it need no correction: the loss of
    a further round is plain maximum likelihood.

    Draws are the prior's that are in the region. Where fewer than one in a thousand is, they are
    resampled from the posterior's, one of 1,024 each time, with weights
    :math:`p(\theta) / q(\theta \mid x_o)`.

    Args:
        prior: The prior p.
        posterior: The posterior q of the observation.
        mass: Its probability of the region.
        generator: Where the draws come from that tell the threshold :math:`\tau`.

    Attributes:
        threshold: The threshold's logarithm, in nats.

    Raises:
        ValueError: If `mass` is not between 0 and 1.

    References:
        | Truncated proposals for scalable and hassle-free simulation-based inference
        | (Deistler et al., 2022), equation 2, https://arxiv.org/abs/2210.04815
    """

    def __init__(
        self,
        prior: Prior,
        posterior: Distribution,
        mass: float = 1 - 1e-4,
        generator: torch.Generator | None = None,
    ) -> None:
        if not 0 < mass < 1:
            raise ValueError(f"mass: expected a number between 0 and 1, got {mass}")
        self.prior, self.posterior = prior, posterior
        with torch.no_grad():
            drawn = draw(posterior, (DRAWS,), generator)
            log_prob = posterior.log_prob(drawn)
        self.dtype = drawn.dtype  # the prior may have another
        self.threshold = float(log_prob.quantile(1 - mass))
        super().__init__((), prior.event_shape)

    @property
    def support(self) -> constraints.Constraint:
        return self.prior.support

    def contains(self, theta: Tensor) -> Tensor:
        """Which parameters, with shape (*, D), are in the region."""
        with torch.no_grad():
            inside: Tensor = self.posterior.log_prob(theta.to(self.dtype)) > self.threshold
        return inside

    def log_prob(self, value: Tensor) -> Tensor:
        r"""The prior's log-density in the region, :math:`-\infty` elsewhere: not normalised."""
        return torch.where(self.contains(value), self.prior.log_prob(value), -math.inf)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws parameters, with shape (*sample_shape, D)."""
        shape = torch.Size(sample_shape)
        n, found = shape.numel(), []
        tried = kept = 0
        while kept < n:
            theta = self.prior.sample((DRAWS,), generator).to(self.dtype)
            found.append(theta[self.contains(theta)])
            tried, kept = tried + DRAWS, kept + len(found[-1])
            if kept < RARE * tried:
                picked = resample(self.posterior, self.log_prob, n, RESAMPLED, generator)
                return picked.reshape(*shape, self.prior.features)
        return torch.cat(found)[:n].reshape(*shape, self.prior.features)
