"""Distributions that are restricted to where their own density is high."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .base import Base, Shape, draw, log_density, unvalidated
from .density import refuse_nan


class HighestDensity(Base):
    r"""A distribution restricted to the region where its log-density is at least a level.

    .. math:: p(x \mid R) = \frac{p(x)}{P(R)}, \quad x \in R, \qquad
        R = \{x : \log p(x) \ge \ell\}

    A flow's samples may have features that it learned nothing about, in places where it has next to
    no density. They are left out here: draws that fall out of the region, or are not finite, are
    drawn again. The probability P(R) is estimated by the share of `draws` that are in it, which is
    known to two standard errors, :math:`2 \sqrt{P (1 - P) / n}`.

    Args:
        base: The distribution p.
        level: The level :math:`\ell`, in nats.
        draws: The draws n that the probability is estimated by; each costs a density, too.
        generator: Where they come from.

    Attributes:
        mass: The probability of the region, with the shape of the batch.
        error: Two standard errors of it.

    Raises:
        ValueError: If none of the draws is in the region, or there are to be none.

    References:
        | Computing and Graphing Highest Density Regions (Hyndman, 1996), definition 1
        | https://doi.org/10.1080/00031305.1996.10474359

    Example:
        >>> from torch.distributions import Normal
        >>> _ = torch.manual_seed(0)
        >>> inner = HighestDensity(Normal(0.0, 1.0), -2.919)  # within two standard deviations
        >>> inner.mass, inner.sample((1000,)).abs().max() < 2
        (tensor(0.95...), tensor(True))
        >>> inner.log_prob(torch.tensor([0.0, 3.0]))
        tensor([-0.8..., -inf])
    """

    def __init__(
        self,
        base: Distribution,
        level: float,
        draws: int = 10_000,
        generator: torch.Generator | None = None,
    ) -> None:
        if draws < 1:
            raise ValueError(f"draws: expected at least 1, got {draws}")
        self.base, self.level = unvalidated(base), level
        with torch.no_grad():
            drawn = draw(self.base, (draws,), generator)
            mass = self.contains(drawn).double().mean(dim=0)
        if not (mass > 0).all():
            raise ValueError(
                f"level: expected one that some draws reach, got {level:g}, which none of "
                f"{draws:,} does"
            )
        self.mass = mass.to(drawn)
        self.error = 2 * (self.mass * (1 - self.mass) / draws).sqrt()
        super().__init__(base.batch_shape, base.event_shape)

    def __repr__(self) -> str:
        return f"HighestDensity({self.base}, level: {self.level:g})"

    @property
    def support(self) -> constraints.Constraint | None:
        return self.base.support

    def contains(self, value: Tensor) -> Tensor:
        """Which points, with shape (*, *event_shape), are in the region."""
        finite = value.isfinite()
        for _ in self.base.event_shape:
            finite = finite.all(dim=-1)
        return finite & (log_density(self.base, value.nan_to_num()) >= self.level)

    def log_prob(self, value: Tensor) -> Tensor:
        refuse_nan("x", value)
        log_prob = log_density(self.base, value) - self.mass.log()
        return torch.where(self.contains(value), log_prob, -math.inf)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws points of the region, with shape (*sample_shape, *batch_shape, *event_shape)."""
        shape = torch.Size(sample_shape)
        drawn = draw(self.base, (shape.numel(),), generator)
        inside = self.contains(drawn)
        while not inside.all():
            rows = (~inside).flatten(1).any(dim=1) if inside.ndim > 1 else ~inside
            again = draw(self.base, (int(rows.sum()),), generator)
            wanted = (~inside[rows]).view(*inside[rows].shape, *(1 for _ in self.event_shape))
            drawn[rows] = torch.where(wanted, again, drawn[rows])
            inside[rows] |= self.contains(again)
        return drawn.reshape(*shape, *self.batch_shape, *self.event_shape)
