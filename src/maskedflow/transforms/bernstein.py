"""Monotone polynomials in the Bernstein basis."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .monotonic import MonotonicTransform


class BernsteinTransform(MonotonicTransform):
    r"""An increasing polynomial on :math:`[-B, B]`, continued by straight lines.

    .. math:: f(x) = \sum_{i=0}^M \theta_i \binom{M}{i} u^i (1 - u)^{M - i}, \quad
        u = \frac{x + B}{2 B}

    It increases since its coefficients do. The first two and the last two of their differences are
    equal, so that the second derivative is zero where the lines begin.

    Args:
        theta: The unconstrained coefficients, with shape (*, M - 1): where f starts, and how it
            grows.
        bound: The bound B.
        eps: The step at which the search for the inverse ends.

    References:
        | Deep transformation models (Sick et al., 2020), https://arxiv.org/abs/2004.00464
        | Short-Term Density Forecasting of Low-Voltage Load (Arpogaus et al., 2022)
        | https://arxiv.org/abs/2204.13939

    Example:
        >>> f = BernsteinTransform(torch.zeros(6))
        >>> x = torch.tensor([-1e6, 2.0])
        >>> f.inv(f(x))
        tensor([-1.0000e+06,  2.0000e+00])
    """

    def __init__(self, theta: Tensor, bound: float = 5.0, eps: float = 1e-6) -> None:
        super().__init__(None, (theta,), bound, eps)
        self.theta = self._constrain(theta)

    @property
    def order(self) -> int:
        """The degree M."""
        return self.theta.shape[-1] - 1

    def _constrain(self, theta: Tensor) -> Tensor:
        start, steps = theta[..., :1], F.softplus(theta[..., 1:])
        steps = torch.cat([start, steps[..., :1], steps, steps[..., -1:]], dim=-1)
        return steps.cumsum(dim=-1) - 0.5 * math.log(2) * theta.shape[-1]

    def f(self, x: Tensor) -> Tensor:
        return self.value_and_slope(x)[0]

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.clamp(-self.bound, self.bound)
        u = (inside + self.bound) / (2 * self.bound)
        # The basis of degree M - 1: its polynomials of neighbouring coefficients give f and f'.
        last = self.order - 1
        i = torch.arange(last + 1, dtype=x.dtype, device=x.device)
        choices = torch.tensor([math.comb(last, k) for k in range(last + 1)], dtype=x.dtype)
        basis = choices.to(x) * u[..., None] ** i * (1 - u[..., None]) ** (last - i)
        steps = (basis * self.theta.diff(dim=-1)).sum(dim=-1)
        value = (basis * self.theta[..., :-1]).sum(dim=-1) + u * steps
        slope = self.order / (2 * self.bound) * steps
        return value + (x - inside) * slope, slope


class BoundedBernsteinTransform(BernsteinTransform):
    r"""An increasing polynomial from :math:`[-B, B]` onto itself, the identity outside.

    It is a :class:`BernsteinTransform` whose first and last steps are such that value, slope and
    curvature meet those of the identity. All parameters at zero make it the identity.

    Args:
        theta: The unconstrained steps, with shape (*, M - 4).

    Example:
        >>> f = BoundedBernsteinTransform(torch.tensor([1.0, 0.0, -1.0]))
        >>> f(torch.tensor([-5.0, 0.0, 5.0, 1e6]))
        tensor([-5.0000e+00,  6.7407e-01,  5.0000e+00,  1.0000e+06])
    """

    def _constrain(self, theta: Tensor) -> Tensor:
        inner = theta.shape[-1]
        step = 2 * self.bound / (inner + 4)
        ends = theta.new_full((*theta.shape[:-1], 2), step)
        steps = torch.cat([ends, inner * step * F.softmax(theta, dim=-1), ends], dim=-1)
        return F.pad(steps.cumsum(dim=-1), (1, 0)) - self.bound
