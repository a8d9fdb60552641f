"""Increasing functions on an interval, integrals and polynomials, continued by straight lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .logistic import softplus
from .monotonic import MonotonicTransform


class UnconstrainedMonotonicTransform(MonotonicTransform):
    r"""The integral of a positive function g, which needs no other constraint.

    .. math:: f(x) = \int_0^x g(u) \, du, \quad \log f'(x) = \log g(x)

    Outside of :math:`[-B, B]` the function goes on in a straight line, as if g were constant: no
    quadrature is precise everywhere, and so f reaches every real number. The integral is a
    Gauss-Legendre quadrature of n points, exact for polynomials of degree 2n - 1 and fast to
    converge where g is smooth; it costs n + 1 evaluations of g, the inverse about ten times that.

    Args:
        g: The function, element by element, on tensors with one more dimension in front. A
            subclass may define it as a method instead.
        n: The number of points n.
        phi: The parameters of g. They get their gradients whether they are named here or not.
        bound: The bound B.
        eps: The step at which the search for the inverse ends.

    References:
        | Unconstrained Monotonic Neural Networks (Wehenkel and Louppe, 2019)
        | https://arxiv.org/abs/1908.05164

    Example:
        >>> f = UnconstrainedMonotonicTransform(lambda u: 1 + 3 * u**2)
        >>> f.call_and_ladj(torch.tensor(2.0))
        (tensor(10.), tensor(2.5649))
        >>> f.inv(torch.tensor(10.0))
        tensor(2.)
    """

    def __init__(
        self,
        g: Callable[[Tensor], Tensor] | None = None,
        n: int = 32,
        phi: Iterable[Tensor] = (),
        bound: float = 10.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(None, phi, bound, eps)
        self._g = g
        self.n = n

    def g(self, x: Tensor) -> Tensor:
        """The integrand."""
        if self._g is None:
            raise NotImplementedError(f"{type(self).__name__}.g")
        return self._g(x)

    def f(self, x: Tensor) -> Tensor:
        return self.value_and_slope(x)[0]

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.clamp(-self.bound, self.bound)
        slope = self.g(inside)
        # Parameters may have more dimensions than x, the points have one in front of all of these.
        inside, x = inside.expand(slope.shape), x.expand(slope.shape)
        points, weights = (
            torch.as_tensor(v, dtype=x.dtype, device=x.device).view(-1, *[1] * x.ndim)
            for v in _gauss_legendre(self.n)
        )
        area = inside * (weights * self.g(points * inside)).sum(dim=0)
        return area + (x - inside) * slope, slope


@cache
def _gauss_legendre(n: int) -> Any:
    """The points and weights of the quadrature on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(n)
    return (points + 1) / 2, weights / 2


class SOSPolynomialTransform(UnconstrainedMonotonicTransform):
    r"""The integral of a sum of squared polynomials.

    .. math:: f(x) = \int_0^x \epsilon + \frac{1}{K} \sum_{k=1}^K
        \left( 1 + \sum_{l=0}^L a_{kl} \left( \frac{u}{B} \right)^l \right)^2 du

    The quadrature is exact. Outside of :math:`[-B, B]` the function goes on in a straight line.

    Args:
        a: The coefficients :math:`a`, with shape (*, K, L + 1).
        slope: The smallest slope :math:`\epsilon`.

    References:
        Sum-of-Squares Polynomial Flow (Jaini et al., 2019), https://arxiv.org/abs/1905.02325

    Example:
        >>> f = SOSPolynomialTransform(torch.zeros(3, 5))
        >>> f(torch.tensor([2.0, 1e6]))
        tensor([2.0020e+00, 1.0010e+06])
    """

    def __init__(
        self, a: Tensor, slope: float = 1e-3, bound: float = 10.0, eps: float = 1e-6
    ) -> None:
        super().__init__(None, a.shape[-1], (a,), bound, eps)
        self.a = a
        self.slope = slope

    def g(self, x: Tensor) -> Tensor:
        u = (x / self.bound)[..., None]
        *rest, polynomial = self.a.unbind(dim=-1)
        for coefficient in reversed(rest):
            polynomial = polynomial * u + coefficient
        # Of degree 0 it has not met u, whose shape the integral needs.
        return (1 + polynomial + 0 * u).square().mean(dim=-1) + self.slope


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
        start, steps = theta[..., :1], softplus(theta[..., 1:])
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
