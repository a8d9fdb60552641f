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
        # The square of a larger scale would be infinite, that of a smaller one zero.
        most = 0.5 * math.log(torch.finfo(scale.dtype).max)
        self.shift, self.log_scale = shift, scale.clamp(-most, most)
        self.scale = self.log_scale.exp()

    def f(self, x: Tensor) -> Tensor:
        return self.value_and_slope(x)[0]

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x[..., None] * self.scale + self.shift
        # By symmetry the smaller of the two tails will do, and is the precise one.
        with torch.no_grad():
            is_upper = torch.special.ndtr(y).mean(dim=-1) > 0.5
            sign = 1 - 2 * is_upper.to(x.dtype)
        y = y * sign[..., None]
        tails, hazards = _tail(y)
        z = _inverse_log_ndtr(tails.logsumexp(dim=-1) - math.log(y.shape[-1]))
        # dz/dx = sum_k w_k exp(a_k) h(y_k) / h(z), with the hazard h = phi / Phi.
        slopes = tails.softmax(dim=-1) * self.scale * hazards
        return sign * z, slopes.sum(dim=-1) / _tail(z)[1]


def _tail(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""The logarithm of :math:`\Phi(x)`, and the hazard :math:`\phi(x) / \Phi(x)`."""
    low, high = x.clamp(max=0), x.clamp(min=0)
    scaled = torch.special.erfcx(low * -math.sqrt(0.5))
    log_left, left = (0.5 * scaled).log() - 0.5 * low.square(), math.sqrt(2 / math.pi) / scaled
    right = -0.5 * torch.special.erfc(high * math.sqrt(0.5))
    density = torch.exp(-0.5 * high.square()) / math.sqrt(2 * math.pi)
    is_left = x < 0
    return (
        torch.where(is_left, log_left, right.log1p()),
        torch.where(is_left, left, density / (1 + right)),
    )


def _inverse_log_ndtr(log_p: Tensor) -> Tensor:
    """Solves log Phi(z) = log p, for p up to about one half, by Newton's method."""
    with torch.no_grad():
        far = (-2 * log_p).clamp(min=1)
        start = -(far - (2 * math.pi * far).log()).clamp(min=0).sqrt()
        z = torch.where(log_p > -10, torch.special.ndtri(log_p.exp()), start)
        z = _step(z, log_p)
    # Two steps with gradients, by the implicit function theorem, as in `find_root`.
    return _step(_step(z, log_p), log_p)


def _step(z: Tensor, log_p: Tensor) -> Tensor:
    log_found, hazard = _tail(z)
    return z - (log_found - log_p) / hazard
