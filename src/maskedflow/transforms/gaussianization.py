"""The map of a mixture of normal distributions to a normal distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .monotonic import MonotonicTransform

__all__ = ["GaussianizationTransform"]


class GaussianizationTransform(MonotonicTransform):
    r"""Maps a mixture of K normal distributions of equal weights to one.

    .. math:: f(x) = \Phi^{-1} \left( \frac{1}{K} \sum_{k=1}^K \Phi(\exp(a_k) x + b_k) \right)

    with the distribution function :math:`\Phi` of N(0, 1). Everything is done with logarithms
    of tail probabilities, so that f reaches every real number. K = 1 is an affine map.

    Args:
        shift: The shifts :math:`b`, with shape (*, K).
        scale: The log-scales :math:`a`, with shape (*, K).
        bound: Where the search for the inverse starts, :math:`[-B, B]`.
        eps: The step at which that search ends.

    References:
        | Gaussianization (Chen and Gopinath, 2000)
        | https://papers.nips.cc/paper/1856-gaussianization

    Example:
        >>> f = GaussianizationTransform(torch.tensor([-1.0, 1.0]), torch.zeros(2))
        >>> f(torch.tensor([1.0, 1e6]))
        tensor([6.3911e-01, 1.0000e+06])
    """

    def __init__(
        self, shift: Tensor, scale: Tensor, bound: float = 10.0, eps: float = 1e-6
    ) -> None:
        super().__init__(None, (shift, scale), bound, eps)
        self.shift, self.log_scale = shift, scale
        self.scale = scale.exp()

    def f(self, x: Tensor) -> Tensor:
        return self.value_and_slope(x)[0]

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x[..., None] * self.scale + self.shift
        # By symmetry the smaller of the two tails will do, and is the precise one.
        with torch.no_grad():
            is_upper = torch.special.ndtr(y).mean(dim=-1) > 0.5
            sign = 1 - 2 * is_upper.to(x.dtype)
        y = y * sign[..., None]
        tails = _log_ndtr(y)
        z = _inverse_log_ndtr(tails.logsumexp(dim=-1) - math.log(y.shape[-1]))
        # dz/dx = sum_k w_k exp(a_k) h(y_k) / h(z), with the hazard h = phi / Phi.
        slopes = tails.softmax(dim=-1) * self.scale * _hazard(y)
        return sign * z, slopes.sum(dim=-1) / _hazard(z)


def _log_ndtr(x: Tensor) -> Tensor:
    """The logarithm of the normal distribution function, with precise derivatives."""
    low = x.clamp(max=0)
    left = (0.5 * torch.special.erfcx(low * -math.sqrt(0.5))).log() - 0.5 * low.square()
    right = (-0.5 * torch.special.erfc(x.clamp(min=0) * math.sqrt(0.5))).log1p()
    return torch.where(x < 0, left, right)


def _hazard(x: Tensor) -> Tensor:
    """The density of N(0, 1) divided by its distribution function."""
    low = x.clamp(max=0)
    left = math.sqrt(2 / math.pi) / torch.special.erfcx(low * -math.sqrt(0.5))
    high = x.clamp(min=0)
    right = torch.exp(-0.5 * high.square()) / (math.sqrt(2 * math.pi) * torch.special.ndtr(high))
    return torch.where(x < 0, left, right)


def _inverse_log_ndtr(log_p: Tensor) -> Tensor:
    """Solves log Phi(z) = log p, for p up to about one half, by Newton's method."""
    with torch.no_grad():
        far = (-2 * log_p).clamp(min=1)
        start = -(far - (2 * math.pi * far).log()).clamp(min=0).sqrt()
        near = torch.special.ndtri(log_p.exp())
        z = torch.where(log_p > -10, near, start)
        for _ in range(4):
            z = z - (_log_ndtr(z) - log_p) / _hazard(z)
    for _ in range(2):  # with gradients, by the implicit function theorem
        z = z - (_log_ndtr(z) - log_p) / _hazard(z)
    return z
