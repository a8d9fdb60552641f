"""Distributions on an interval."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.transforms import Transform
from torch.distributions.utils import broadcast_all

from maskedflow.transforms.base import sum_rightmost

from .base import Base, Shape, log_density, probability_below, require_number, unvalidated
from .elementwise import Elementwise
from .flow import NormalizingFlow


class BoxUniform(Elementwise):
    r"""The uniform distribution on a box.

    .. math:: p(x) = \prod_i \frac{1}{u_i - l_i}, \quad l_i \le x_i \le u_i

    The box is closed: a latent that rounds to a bound has its density, and not none.

    Args:
        lower: The lower bounds :math:`l`, with shape (*, D).
        upper: The upper bounds :math:`u`, with shape (*, D).
        ndims: How many of the rightmost dimensions are features.

    Example:
        >>> d = BoxUniform(-torch.ones(3), torch.ones(3))
        >>> d.log_prob(torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.0, 2.0]]))
        tensor([-2.0794,    -inf])
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, lower: Tensor | float, upper: Tensor | float, ndims: int = 1) -> None:
        super().__init__(ndims, lower=lower, upper=upper)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.interval(self.lower, self.upper), self.ndims)

    @property
    def mean(self) -> Tensor:
        return 0.5 * (self.lower + self.upper)

    @property
    def variance(self) -> Tensor:
        return (self.upper - self.lower).square() / 12

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        return sum_rightmost((self.upper - self.lower).log(), self.ndims)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability below each element."""
        return ((value - self.lower) / (self.upper - self.lower)).clamp(0, 1)

    def log_prob(self, value: Tensor) -> Tensor:
        inside = (self.lower <= value) & (value <= self.upper)
        log_density = torch.where(inside, -(self.upper - self.lower).log(), -math.inf)
        return sum_rightmost(log_density, self.ndims)

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        like = self.lower
        share = torch.rand(
            self._extended(sample_shape), dtype=like.dtype, device=like.device, generator=generator
        )
        return torch.lerp(self.lower, self.upper, share)


class TransformedUniform(NormalizingFlow):
    r"""The distribution of x on :math:`[l, u]` such that f(x) is uniform.

    .. math:: p(x) = \frac{f'(x)}{f(u) - f(l)}, \quad l \le x \le u

    Args:
        f: An increasing map f of numbers.
        lower: The lower bound l, with shape (*,).
        upper: The upper bound u, with shape (*,).

    Example:
        >>> from torch.distributions import ExpTransform
        >>> TransformedUniform(ExpTransform(), -1.0, 1.0).log_prob(torch.tensor(1.0))
        tensor(0.1454)
    """

    def __init__(self, f: Transform, lower: Tensor | float, upper: Tensor | float) -> None:
        self.lower, self.upper = broadcast_all(lower, upper)
        super().__init__(f, BoxUniform(f(self.lower), f(self.upper), ndims=0))

    def expand(self, batch_shape: Shape, _instance: Any = None) -> TransformedUniform:
        lower, upper = (bound.expand(batch_shape) for bound in (self.lower, self.upper))
        return TransformedUniform(self.transform, lower, upper)


class Truncated(Base):
    r"""A distribution of one number, given that it is in an interval.

    .. math:: p(x \mid l \le X \le u) = \frac{p(x)}{P(X \le u) - P(X \le l)}, \quad l \le x \le u

    Args:
        base: The distribution p, which has a `cdf`, and an `icdf` to draw.
        lower: The lower bound l, with shape (*,).
        upper: The upper bound u, with shape (*,).

    Raises:
        ValueError: If the base is not of one number, or has no probability in the interval.

    Example:
        >>> from torch.distributions import Normal
        >>> Truncated(Normal(0.0, 1.0), 1.0, 2.0).log_prob(torch.tensor([0.5, 1.5]))
        tensor([   -inf, -0.0481])
    """

    has_rsample = True

    def __init__(
        self,
        base: Distribution,
        lower: Tensor | float = -math.inf,
        upper: Tensor | float = math.inf,
    ) -> None:
        require_number(base)
        base = unvalidated(base)
        zero = torch.zeros_like(base.mean)
        self.base = base
        self.lower, self.upper = (torch.as_tensor(bound).to(zero) for bound in (lower, upper))
        self.below, above = (
            probability_below(base, bound + zero) for bound in (self.lower, self.upper)
        )
        self.mass = above - self.below
        if not bool((self.mass > 0).all()):
            raise ValueError("lower, upper: expected an interval of positive probability, got none")
        super().__init__(self.mass.shape, ())

    def __repr__(self) -> str:
        return f"Truncated({self.base})"

    @property
    def support(self) -> constraints.Constraint:
        return constraints.interval(self.lower, self.upper)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Truncated:
        shape = torch.Size(batch_shape)
        return Truncated(
            self.base.expand(shape), self.lower.expand(shape), self.upper.expand(shape)
        )

    def cdf(self, value: Tensor) -> Tensor:
        """The probability below `value`."""
        value = torch.as_tensor(value).to(self.mass).clamp(self.lower, self.upper)
        return ((probability_below(self.base, value) - self.below) / self.mass).clamp(0, 1)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of the probability `value`."""
        share = self.below + self.mass * value
        # The quantiles of zero and one may be infinite.
        info = torch.finfo(share.dtype)
        x = self.base.icdf(share.clamp(info.tiny, 1 - info.eps / 2))
        return x.clamp(self.lower, self.upper)

    def log_prob(self, value: Tensor) -> Tensor:
        inside = (self.lower <= value) & (value <= self.upper)
        log_prob = log_density(self.base, value) - self.mass.log()
        return torch.where(inside, log_prob, -math.inf)

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        shape = (*sample_shape, *self.batch_shape)
        like = self.mass
        return self.icdf(
            torch.rand(shape, dtype=like.dtype, device=like.device, generator=generator)
        )
