"""Bounded numbers, mapped to the real line."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import DependentTransform, UnivariateTransform
from .lazy import LazyTransform
from .logistic import sigmoid


class BoundsTransform(UnivariateTransform):
    r"""An increasing map of an open interval to the real line, element by element.

    ===================== ======================================
    interval              f(x)
    ===================== ======================================
    :math:`(l, u)`        :math:`\log (x - l) - \log (u - x)`
    :math:`(l, \infty)`   :math:`\log (x - l)`
    :math:`(-\infty, u)`  :math:`-\log (u - x)`
    the real line         :math:`x`
    ===================== ======================================

    Soft edges of a width s > 0 bend the line only where it ends,

    .. math:: f(x) = l + s \log (e^{(x - l) / s} - 1) ,

    and alike, mirrored, at the image of u: far from the bounds f(x) is x.

    Elsewhere f is 0 and its ladj :math:`-\infty`: a density there is 0. The inverse never leaves
    the interval, not by rounding either.

    Args:
        low: The lower bounds l, :math:`-\infty` where there is none, with shape (*,).
        high: The upper bounds u, :math:`\infty` where there is none, with shape (*,).
        edges: The widths s of soft edges, 0 where there are none, with shape (*,); all 0 if None.

    Example:
        >>> low, high = torch.tensor([0.0, 0.0]), torch.tensor([math.inf, 1.0])
        >>> BoundsTransform(low, high)(torch.tensor([1.0, 0.5]))
        tensor([0., 0.])
        >>> BoundsTransform(low, high, torch.tensor([1.0, 0.1]))(torch.tensor([9.0, 0.5]))
        tensor([8.9999, 0.5000])
    """

    def __init__(self, low: Tensor, high: Tensor, edges: Tensor | None = None) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.below, self.above = low.isfinite(), high.isfinite()
        self.log_width = torch.where(self.below & self.above, high - low, 1).log()
        soft = None if edges is None else (edges > 0) & (self.below | self.above)
        self.soft = None if soft is None or not soft.any() else soft
        self.edges = None if edges is None else torch.where(edges > 0, edges, 1)

    def __repr__(self) -> str:
        return f"BoundsTransform(shape={tuple(self.low.shape)})"

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inside = (self.low < x) & (x < self.high)
        left = torch.where(inside & self.below, x - self.low, 1).log()
        right = torch.where(inside & self.above, self.high - x, 1).log()
        y = torch.where(self.below | self.above, left - right, x)
        ladj = self.log_width - left - right
        if self.soft is not None and self.edges is not None:
            y_soft, ladj_soft = self._bend(x, inside, self.edges)
            y, ladj = torch.where(self.soft, y_soft, y), torch.where(self.soft, ladj_soft, ladj)
        return torch.where(inside, y, 0), torch.where(inside, ladj, -math.inf)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        # From the nearer bound, for the sake of precision.
        both = self.below & self.above
        width = torch.where(both, self.high - self.low, 1)
        low, high = torch.where(self.below, self.low, 0), torch.where(self.above, self.high, 0)
        share = width * sigmoid(-y.abs())
        between = torch.where(y < 0, low + share, high - share)
        # Beyond this an exponential would not be finite.
        most = 0.5 * math.log(torch.finfo(y.dtype).max)
        half = torch.where(
            self.below, low + y.clamp(max=most).exp(), high - y.clamp(min=-most).neg().exp()
        )
        x = torch.where(both, between, torch.where(self.below | self.above, half, y))
        ladj = torch.where(both, self.log_width + F.logsigmoid(y) + F.logsigmoid(-y), 0)
        ladj = torch.where(self.below & ~self.above, y, ladj)
        ladj = torch.where(self.above & ~self.below, -y, ladj)
        if self.soft is not None and self.edges is not None:
            x_soft, ladj_soft = self._unbend(y, self.edges)
            x, ladj = torch.where(self.soft, x_soft, x), torch.where(self.soft, ladj_soft, ladj)
        inner_low, inner_high = torch.nextafter(self.low, self.high), self.high.nextafter(self.low)
        return x.clamp(
            torch.where(self.below, inner_low, -math.inf),
            torch.where(self.above, inner_high, math.inf),
        ), ladj

    def _bend(self, x: Tensor, inside: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        left = torch.where(inside, x - self.low, s) / s
        right = torch.where(inside, self.high - x, s) / s
        lower = (-torch.expm1(-left)).log()
        # How far the lower edge's image of x is from that of u, without their difference.
        gap = right + torch.log1p((-left).exp() * torch.expm1(-right) / torch.expm1(-left))
        upper = (-torch.expm1(-gap)).log()
        return x + s * (lower - upper), -(lower + upper)

    def _unbend(self, y: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        width = (self.high - self.low) / s
        length = width + (-torch.expm1(-width)).log()  # between l and the image of u
        end = torch.where(self.below, self.low + s * length, self.high)
        gap = -F.logsigmoid((y - end) / s)
        left = (y + s * F.logsigmoid((end - y) / s) - self.low) / s
        from_low = self.low - s * F.logsigmoid(-left)
        most = 0.5 * math.log(torch.finfo(y.dtype).max)
        bent = torch.log1p(sigmoid(-length) * torch.expm1(gap.clamp(max=most)))
        from_high = self.high - s * (gap - bent)
        is_high = self.above & (~self.below | (2 * from_low > self.low + self.high))
        return (
            torch.where(is_high, from_high, from_low),
            F.logsigmoid(left) + F.logsigmoid((end - y) / s),
        )


class Bounds(LazyTransform):
    """The lazy :class:`BoundsTransform` of all features, with bounds of shape (D,).

    Raises:
        ValueError: If a lower bound is not below the upper one.

    Example:
        >>> Bounds(torch.tensor([0.0]), torch.tensor([math.inf]))().call_and_ladj(torch.ones(1))
        (tensor([0.]), tensor(0.))
    """

    low: Tensor
    high: Tensor
    edges: Tensor | None

    is_fixed = is_rowwise = True

    def __init__(self, low: Tensor, high: Tensor, edges: Tensor | None = None) -> None:
        super().__init__()
        for column, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            if not least < most:
                raise ValueError(
                    f"low: expected less than the upper bound {most:g} of column {column}, "
                    f"got {least:g}"
                )
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        # Files that are older than soft edges have none.
        self.register_buffer("edges", edges, persistent=False)

    def extra_repr(self) -> str:
        return f"features={len(self.low)}"

    def forward(self, c: Tensor | None = None) -> DependentTransform:
        return DependentTransform(BoundsTransform(self.low, self.high, self.edges), 1)
