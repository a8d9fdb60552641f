"""Distributions of independent elements: normal, with heavy tails, and in between."""

from __future__ import annotations

import copy
import math
from typing import Any, Self

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from maskedflow.transforms.base import sum_rightmost

from .base import Base, Shape


class Elementwise(Base):
    """A distribution of independent elements, whose `ndims` rightmost dimensions are one event.

    Its parameters, given by name, are tensors or numbers that broadcast against each other.
    """

    has_rsample = True

    def __init__(self, ndims: int, **parameters: Tensor | float) -> None:
        values = broadcast_all(*parameters.values())
        shape = values[0].shape
        if not 0 <= ndims <= len(shape):
            raise ValueError(
                f"ndims: expected at most the {len(shape)} dimensions of the parameters, "
                f"got {ndims}"
            )
        self.ndims = ndims
        self._take(dict(zip(parameters, values, strict=True)))

    def _take(self, parameters: dict[str, Tensor]) -> None:
        self.parameters = parameters
        for name, value in parameters.items():
            setattr(self, name, value)
        shape = next(iter(parameters.values())).shape
        split = len(shape) - self.ndims
        Base.__init__(self, shape[:split], shape[split:])

    def __repr__(self) -> str:
        shapes = (f"{name}: {value.shape}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({', '.join(shapes)})"

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.ndims)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Self:
        new = copy.copy(self)
        shape = (*batch_shape, *self.event_shape)
        new._take({name: value.expand(shape) for name, value in self.parameters.items()})
        return new

    def _extended(self, sample_shape: Shape) -> Size:
        return Size((*sample_shape, *self.batch_shape, *self.event_shape))


class DiagNormal(Elementwise):
    r"""A normal distribution of independent features.

    .. math:: \log p(x) = -\frac{1}{2} \sum_i \left( \frac{x_i - \mu_i}{\sigma_i} \right)^2
        + \log 2 \pi \sigma_i^2

    Args:
        loc: The means :math:`\mu`, with shape (*, D).
        scale: The standard deviations :math:`\sigma`, with shape (*, D).
        ndims: How many of the rightmost dimensions are features.

    Example:
        >>> DiagNormal(torch.zeros(2), torch.ones(2)).log_prob(torch.zeros(2))
        tensor(-1.8379)
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor | float, scale: Tensor | float, ndims: int = 1) -> None:
        super().__init__(ndims, loc=loc, scale=scale)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale.square()

    def tempered(self, temperature: float) -> DiagNormal:
        """The same with standard deviations times a temperature, from 0 on."""
        return DiagNormal(self.loc, self.scale * temperature, self.ndims)

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        one = 0.5 * math.log(2 * math.pi * math.e)
        return sum_rightmost(one + self.scale.log(), self.ndims)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less, of each element by itself."""
        probability: Tensor = torch.special.ndtr((value - self.loc) / self.scale)
        return probability

    def log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        constant = 0.5 * self.event_shape.numel() * math.log(2 * math.pi)
        log_volume = sum_rightmost(self.scale.log(), self.ndims)
        return -0.5 * sum_rightmost(z.square(), self.ndims) - (log_volume + constant)

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        return self.loc + self.scale * _normal(self.loc, self._extended(sample_shape), generator)


class StudentT(Elementwise):
    r"""Student's t-distribution of independent features: tails like :math:`|x|^{-\nu - 1}`.

    .. math:: \log p(x) = \sum_i \log \frac{\Gamma(\frac{\nu_i + 1}{2})}
        {\Gamma(\frac{\nu_i}{2}) \sqrt{\pi \nu_i} \, \sigma_i}
        - \frac{\nu_i + 1}{2} \log \left( 1 + \frac{z_i^2}{\nu_i} \right), \quad
        z_i = \frac{x_i - \mu_i}{\sigma_i}

    As a base it gives a flow heavy tails, which no affine or spline map can make of a Gaussian's.

    Args:
        df: The degrees of freedom :math:`\nu`, with shape (*, D).
        loc: The medians :math:`\mu`, with shape (*, D).
        scale: The scales :math:`\sigma`, with shape (*, D).
        ndims: How many of the rightmost dimensions are features.

    References:
        Tails of Lipschitz Triangular Flows (Jaini et al., 2020), https://arxiv.org/abs/1907.04481

    Example:
        >>> StudentT(torch.ones(2)).log_prob(torch.tensor([0.0, 1e6]))  # Cauchy
        tensor(-29.9205)
    """

    df: Tensor
    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        ndims: int = 1,
    ) -> None:
        super().__init__(ndims, df=df, loc=loc, scale=scale)

    @property
    def mean(self) -> Tensor:
        """The means, NaN where there is none."""
        return self.loc.masked_fill(self.df <= 1, math.nan)

    @property
    def variance(self) -> Tensor:
        """The variances, infinite or NaN where there is none."""
        variance = self.scale.square() * self.df / (self.df - 2)
        return variance.masked_fill(self.df <= 2, math.inf).masked_fill(self.df <= 1, math.nan)

    def log_prob(self, value: Tensor) -> Tensor:
        half = 0.5 * (self.df + 1)
        z = (value - self.loc) / self.scale
        # Beyond this a square would be infinite: log(1 + z^2) is 2 log(z) by then.
        bound = 0.1 * math.sqrt(torch.finfo(z.dtype).max)
        far = 2 * torch.log((z / bound).abs().clamp(min=1))
        near = torch.log1p(z.clamp(-bound, bound).square() / self.df)
        log_norm = _lgamma_step(0.5 * self.df)
        log_norm = log_norm - 0.5 * torch.log(math.pi * self.df) - self.scale.log()
        return sum_rightmost(log_norm - half * (near + far), self.ndims)

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        shape = self._extended(sample_shape)
        half = (0.5 * self.df).expand(shape)
        gamma = torch._standard_gamma(half, generator=generator)
        # Few degrees of freedom let a gamma variable round to zero.
        shrink = (gamma / half).clamp(min=torch.finfo(gamma.dtype).tiny).rsqrt()
        return self.loc + self.scale * _normal(self.loc, shape, generator) * shrink


class GeneralizedNormal(Elementwise):
    r"""The generalized normal distribution: Laplace's, the normal one, and towards a uniform one.

    .. math:: p(x) = \frac{\beta}{2 \Gamma(1 / \beta)} \exp(-|x|^\beta)

    Args:
        beta: The shape :math:`\beta`, with shape (*,).

    References:
        https://en.wikipedia.org/wiki/Generalized_normal_distribution

    Example:
        >>> GeneralizedNormal(2.0).log_prob(torch.tensor(0.0))
        tensor(-0.5724)
    """

    beta: Tensor

    def __init__(self, beta: Tensor | float) -> None:
        super().__init__(0, beta=beta)

    def log_prob(self, value: Tensor) -> Tensor:
        log_norm = torch.log(self.beta / 2) - torch.lgamma(1 / self.beta)
        return log_norm - value.abs() ** self.beta

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        power = (1 / self.beta).expand(self._extended(sample_shape))
        size: Tensor = torch._standard_gamma(power, generator=generator) ** power
        heads = torch.rand(size.shape, dtype=size.dtype, device=size.device, generator=generator)
        return torch.where(heads < 0.5, -size, size)


def _lgamma_step(a: Tensor) -> Tensor:
    r"""Computes :math:`\log \Gamma(a + 1/2) - \log \Gamma(a)`, whose difference large a lose.

    Example:
        >>> _lgamma_step(torch.tensor([0.5, 5e7]))
        tensor([-0.5724,  8.8638])
    """
    large = a.clamp(min=100)
    series = 0.5 * large.log() - 1 / (8 * large) + 1 / (192 * large**3)  # Stirling's
    return torch.where(a > 100, series, torch.lgamma(a + 0.5) - torch.lgamma(a))


def _normal(like: Tensor, shape: Size, generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)
