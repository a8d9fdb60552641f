"""Monotone splines of one feature."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from maskedflow.kernels import Kernel, Map

from .base import ComposedTransform, UnivariateTransform
from .elementary import CircularShiftTransform, soft_clip


class MonotonicRQSTransform(UnivariateTransform):
    r"""The monotone rational-quadratic spline, the identity outside of :math:`[-B, B]`.

    In bin k, with :math:`\xi = (x - x_k) / (x_{k+1} - x_k)` and slope
    :math:`s = (y_{k+1} - y_k) / (x_{k+1} - x_k)`,

    .. math:: f(x) = y_k + (y_{k+1} - y_k)
        \frac{s \xi^2 + d_k \xi (1 - \xi)}{s + (d_k + d_{k+1} - 2 s) \xi (1 - \xi)} .

    The first and the last knot have slope 1, so that f is smooth; all parameters at zero make it
    the identity. The inverse solves a quadratic, without cancellation.

    Args:
        widths: The unconstrained widths of the bins, with shape (*, K).
        heights: The unconstrained heights of the bins, with shape (*, K).
        derivatives: The unconstrained slopes at the inner knots, with shape (*, K - 1).
        bound: The bound B.
        slope: The smallest slope at a knot, and the smallest ratio of two bins.

    References:
        Neural Spline Flows (Durkan et al., 2019), section 3.1, https://arxiv.org/abs/1906.04032

    Example:
        >>> f = MonotonicRQSTransform(torch.zeros(8), torch.zeros(8), torch.zeros(7))
        >>> f.call_and_ladj(torch.tensor([1e6]))
        (tensor([1000000.]), tensor([0.]))
    """

    def __init__(
        self,
        widths: Tensor,
        heights: Tensor,
        derivatives: Tensor,
        bound: float = 5.0,
        slope: float = 1e-3,
    ) -> None:
        super().__init__()
        self.bound, self.slope = bound, slope
        self.horizontal, self.vertical = self._axis(widths), self._axis(heights)
        self.derivatives = F.pad(derivatives, (1, 1))  # at the ends the logarithm of slope 1

    def _axis(self, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sizes of the bins and the knots, counted from zero, and the length of their unit.

        To divide by the sum only what is looked up is cheaper than a softmax. Sizes and knots both,
        for differences of knots would be less precise.
        """
        # Of a slice that is not contiguous every reading is slow: it is copied once.
        sizes = soft_clip(sizes.contiguous(), 0.5 * math.log(self.slope)).exp()
        knots = F.pad(sizes.cumsum(dim=-1), (1, 0))
        return sizes, knots, 2 * self.bound / knots[..., -1:]

    def __repr__(self) -> str:
        return f"MonotonicRQSTransform(bins={self.bins}, bound={self.bound})"

    @property
    def bins(self) -> int:
        """The number of bins K."""
        return self.horizontal[0].shape[-1]

    @property
    def kernel(self) -> Kernel | None:
        """What the compiled sweep calls this map, and its parameters."""
        if self.horizontal[0].ndim != 1:
            return None
        return Map.SPLINE, (self.bound, math.log(self.slope), float(self.bins))

    def _bin(self, along: tuple[Tensor, Tensor, Tensor], value: Tensor) -> tuple[Tensor, ...]:
        """Which values are inside, and for these x0, y0, width, height, d0, d1 of their bin."""
        inside = (value >= -self.bound) & (value < self.bound)
        _, knots, unit = along
        place = (value[..., None] + self.bound) / unit.detach()
        index = (knots.detach()[..., 1:-1] <= place).sum(dim=-1, keepdim=True)

        def at(values: Tensor, index: Tensor) -> Tensor:
            return values.expand(*index.shape[:-1], values.shape[-1]).gather(-1, index)

        starts = [
            unit * at(knots, index) - self.bound
            for _, knots, unit in (self.horizontal, self.vertical)
        ]
        sizes = [unit * at(sizes, index) for sizes, _, unit in (self.horizontal, self.vertical)]
        slopes = at(self.derivatives, torch.cat([index, index + 1], dim=-1))
        slopes = soft_clip(slopes, math.log(self.slope)).exp()
        return inside, *(found[..., 0] for found in (*starts, *sizes)), *slopes.unbind(dim=-1)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inside, x0, y0, width, height, d0, d1 = self._bin(self.horizontal, x)
        xi = (torch.where(inside, x - x0, 0) / width).clamp(0, 1)
        y, ladj = evaluate_bin(xi, 1 - xi, height / width, d0, d1)
        return torch.where(inside, y0 + height * y, x), torch.where(inside, ladj, 0)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        inside, x0, y0, width, height, d0, d1 = self._bin(self.vertical, y)
        s, part = height / width, (torch.where(inside, y - y0, 0) / height).clamp(0, 1)
        xi, rest = solve_bin(part, s, d0, d1)
        ladj = -evaluate_bin(xi, rest, s, d0, d1)[1]
        return torch.where(inside, x0 + xi * width, y), torch.where(inside, ladj, 0)


def evaluate_bin(
    xi: Tensor, rest: Tensor, s: Tensor, d0: Tensor, d1: Tensor
) -> tuple[Tensor, Tensor]:
    """The share of the bin's height at the share xi of its width, and log f'; rest is 1 - xi."""
    both = xi * rest
    below = s * (xi.square() + rest.square()) + (d0 + d1) * both
    slope = d1 * xi.square() + 2 * s * both + d0 * rest.square()
    return xi * (s * xi + d0 * rest) / below, 2 * (s / below).log() + slope.log()


def solve_bin(part: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> tuple[Tensor, Tensor]:
    """The share of the bin's width at the share of its height, and one minus it."""
    # The quadratic for xi at the share t of the height, with u = d1 t - d0 (1 - t), has
    # the discriminant u^2 + 4 s^2 t (1 - t). Nothing is subtracted from here on.
    below, above = 2 * s * part, 2 * s * (1 - part)
    u = d1 * part - d0 * (1 - part)
    root = u.abs() + (u.square() + below * above).sqrt()
    left, right = torch.where(u > 0, root, below), torch.where(u > 0, above, root)
    return left / (left + right), right / (left + right)


def CircularRQSTransform(
    widths: Tensor, heights: Tensor, derivatives: Tensor, slope: float = 1e-3
) -> ComposedTransform:
    r"""A monotone rational-quadratic spline on the circle :math:`[-\pi, \pi)`.

    Half a turn, and then a spline from :math:`[-\pi, \pi]` onto itself. Both of its ends have slope
    1, so there is no edge where they meet, and the half turn lets the next spline meet elsewhere.

    The parameters are those of :class:`MonotonicRQSTransform`.

    References:
        | Normalizing Flows on Tori and Spheres (Rezende et al., 2020), section 2.1
        | https://arxiv.org/abs/2002.02428

    Example:
        >>> f = CircularRQSTransform(torch.zeros(8), torch.zeros(8), torch.zeros(7))
        >>> f(torch.tensor([-0.1, 0.1, 0.1 + 2 * math.pi]))
        tensor([ 3.0416, -3.0416, -3.0416])
    """
    spline = MonotonicRQSTransform(widths, heights, derivatives, bound=math.pi, slope=slope)
    return ComposedTransform(CircularShiftTransform(math.pi), spline)
