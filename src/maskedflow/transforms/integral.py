"""Integrals of positive functions of one feature."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
