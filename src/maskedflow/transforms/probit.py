"""Bounded numbers, mapped to normal quantiles."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import ComposedTransform, DependentTransform, UnivariateTransform
from .bounds import Bounds
from .lazy import LazyTransform
from .logistic import sigmoid


class ProbitTransform(UnivariateTransform):
    r"""The map of logits to quantiles of the normal distribution, :math:`\Phi^{-1}(\sigma(x))`.

    A logistic variable becomes normal.

    Args:
        among: Which features are mapped, others being left as they are, with shape (D,).

    Example:
        >>> ProbitTransform(torch.tensor([True, False]))(torch.tensor([1.0, 1.0]))
        tensor([0.6160, 1.0000])
    """

    def __init__(self, among: Tensor) -> None:
        super().__init__()
        self.among = among

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        below = x < 0
        # Of the smaller tail, for the sake of precision.
        tail = sigmoid(torch.where(below, x, -x)).clamp(min=torch.finfo(x.dtype).tiny)
        quantile = torch.special.ndtri(tail)
        y = torch.where(below, quantile, -quantile)
        ladj = F.logsigmoid(x) + F.logsigmoid(-x) - _log_normal(y)
        return torch.where(self.among, y, x), torch.where(self.among, ladj, 0)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.special.log_ndtr(y), torch.special.log_ndtr(-y)
        ladj = _log_normal(y) - low - high
        return torch.where(self.among, low - high, y), torch.where(self.among, ladj, 0)


def _log_normal(y: Tensor) -> Tensor:
    return -0.5 * (y.square() + math.log(2 * math.pi))


class Probit(LazyTransform):
    r"""The lazy map of features with bounds to the line, element by element.

    ===================== =============================================
    interval              f(x)
    ===================== =============================================
    :math:`(l, u)`        :math:`\Phi^{-1}((x - l) / (u - l))`
    :math:`(l, \infty)`   :math:`\log (x - l)`
    :math:`(-\infty, u)`  :math:`-\log (u - x)`
    the real line         :math:`x`
    ===================== =============================================

    What is uniform on an interval becomes normal, as a flow's base is: a density that does not end
    before its bounds has no heavy tails, as it would have behind a logit.

    The inverse never leaves the support, not by rounding either. Outside of it the ladj is
    :math:`-\infty`.

    Args:
        low: The lower bounds l, :math:`-\infty` where there is none, with shape (D,).
        high: The upper bounds u, :math:`\infty` where there is none, with shape (D,).

    Raises:
        ValueError: If a lower bound is not below the upper one.

    Example:
        >>> probit = Probit(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, torch.inf]))
        >>> probit()(torch.tensor([0.5, 1.0]))
        tensor([0.6745, 0.0000])
    """

    is_fixed = is_rowwise = True

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.bounds = Bounds(low, high)

    def forward(self, c: Tensor | None = None) -> ComposedTransform:
        intervals = self.bounds.low.isfinite() & self.bounds.high.isfinite()
        if not bool(intervals.any()):
            return ComposedTransform(self.bounds())
        return ComposedTransform(self.bounds(), DependentTransform(ProbitTransform(intervals), 1))

    def inside(self, x: Tensor) -> Tensor:
        """The same points, those on a bound moved inside by the least that is possible."""
        low, high = self.bounds.low, self.bounds.high
        least, most = torch.nextafter(low, high), torch.nextafter(high, low)
        return x.clamp(
            torch.where(low.isfinite(), least, low), torch.where(high.isfinite(), most, high)
        )
