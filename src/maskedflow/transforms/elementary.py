"""Maps of one feature that have few parameters or none."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints

from .base import Transform, UnivariateTransform


def soft_clip(value: Tensor, bound: float) -> Tensor:
    """Squeezes values into the open interval (-bound, bound), with slope 1 at zero."""
    return value / (1 + (value / bound).abs())


class CosTransform(UnivariateTransform):
    r"""The map :math:`f(x) = -\cos x` from :math:`[0, \pi]` to :math:`[-1, 1]`.

    Example:
        >>> CosTransform()(torch.tensor([0.0, math.pi]))
        tensor([-1.,  1.])
    """

    domain = constraints.interval(0, math.pi)
    codomain = constraints.interval(-1, 1)

    def _call(self, x: Tensor) -> Tensor:
        return -x.cos()

    def _inverse(self, y: Tensor) -> Tensor:
        return (-y).acos()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.sin().abs().log()


class SinTransform(UnivariateTransform):
    r"""The map :math:`f(x) = \sin x` from :math:`[-\pi/2, \pi/2]` to :math:`[-1, 1]`.

    Example:
        >>> SinTransform()(torch.tensor([0.0, math.pi / 2]))
        tensor([0., 1.])
    """

    domain = constraints.interval(-math.pi / 2, math.pi / 2)
    codomain = constraints.interval(-1, 1)

    def _call(self, x: Tensor) -> Tensor:
        return x.sin()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.asin()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.cos().abs().log()


class SoftclipTransform(UnivariateTransform):
    r"""Squeezes the real line into :math:`(-B, B)`, with slope 1 at zero.

    .. math:: f(x) = \frac{x}{1 + |x / B|}

    The inverse of a value outside of the interval is that of the largest one inside.

    Example:
        >>> SoftclipTransform(11.0)(torch.tensor([1e6, -11.0]))
        tensor([10.9999, -5.5000])
    """

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__()
        self.bound = bound
        self.codomain = constraints.interval(-bound, bound)

    def __repr__(self) -> str:
        return f"SoftclipTransform(bound={self.bound})"

    def _call(self, x: Tensor) -> Tensor:
        return soft_clip(x, self.bound)

    def _inverse(self, y: Tensor) -> Tensor:
        ratio = (y / self.bound).clamp(-1, 1)
        return self.bound * ratio / (1 - ratio.abs()).clamp(min=torch.finfo(y.dtype).eps)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -2 * (x / self.bound).abs().log1p()


class CircularShiftTransform(Transform):
    r"""Turns the circle :math:`[-B, B)` by half.

    .. math:: f(x) = (x \bmod 2 B) - B

    It is its own inverse on the interval. No number is outside of its domain: it takes x and
    x + 2B to the same point.

    Example:
        >>> CircularShiftTransform(math.pi)(torch.tensor([0.0, 3.0, 9.0]))
        tensor([-3.1416, -0.1416, -0.4248])
    """

    domain = constraints.real

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__()
        self.bound = bound
        self.codomain = constraints.interval(-bound, bound)

    def __repr__(self) -> str:
        return f"CircularShiftTransform(bound={self.bound})"

    @property
    def inv(self) -> CircularShiftTransform:
        return self

    def _call(self, x: Tensor) -> Tensor:
        return torch.remainder(x, 2 * self.bound) - self.bound

    def _inverse(self, y: Tensor) -> Tensor:
        return self._call(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x)


class SignedPowerTransform(UnivariateTransform):
    r"""A power that keeps the sign.

    .. math:: f(x) = \text{sign}(x) |x|^{\exp \alpha}

    Args:
        alpha: The unconstrained exponent :math:`\alpha`, with shape (*,).

    Example:
        >>> SignedPowerTransform(torch.tensor(math.log(2)))(torch.tensor([-3.0, 3.0]))
        tensor([-9.,  9.])
    """

    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        self.alpha = alpha

    def _call(self, x: Tensor) -> Tensor:
        return x.sign() * x.abs() ** self.alpha.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.sign() * y.abs() ** (-self.alpha).exp()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.alpha + torch.xlogy(self.alpha.expm1(), x.abs())
