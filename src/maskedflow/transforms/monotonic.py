"""Increasing functions of one feature that are inverted by finding roots."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .base import UnivariateTransform
from .roots import bracket, find_root


class MonotonicTransform(UnivariateTransform):
    r"""Any increasing function of one feature.

    .. math:: y = f_\phi(x), \quad \log \left| \frac{dy}{dx} \right| = \log f_\phi'(x)

    The slope is autograd's. The inverse brackets the root of :math:`f_\phi(x) = y` and refines it
    to the precision of the dtype, which costs about ten evaluations of f and its slope. It is
    differentiable by y and by whatever tensors f depends on, by the implicit function theorem:
    :math:`dx = (dy - \partial_\phi f \, d\phi) / f_\phi'(x)`.

    Args:
        f: The function, element by element, strictly increasing onto the real line. A subclass
            may define it as a method instead.
        phi: The parameters of f. They get their gradients whether they are named here or not.
        bound: Where the search for the root starts, :math:`[-B, B]`. It may lie outside.
        eps: The step at which the search ends and two last steps of Newton's method are enough.

    References:
        | Neural Autoregressive Flows (Huang et al., 2018), section 3
        | https://arxiv.org/abs/1804.00779

    Example:
        >>> f = MonotonicTransform(lambda x: x + x**3)
        >>> f.call_and_ladj(torch.tensor(2.0))
        (tensor(10.), tensor(2.5649))
        >>> f.inv(torch.tensor([10.0, 1e6 + 1e18]))
        tensor([2.0000e+00, 1.0000e+06])
    """

    def __init__(
        self,
        f: Callable[[Tensor], Tensor] | None = None,
        phi: Iterable[Tensor] = (),
        bound: float = 10.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self._f = f
        self.phi = tuple(phi)
        self.bound, self.eps = bound, eps

    def f(self, x: Tensor) -> Tensor:
        """The function."""
        if self._f is None:
            raise NotImplementedError(f"{type(self).__name__}.f")
        return self._f(x)

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The function and its derivative, which a subclass may know better than autograd."""
        # Unlike torch.autograd.grad, this works under torch.func and in inference mode, too.
        y, pull = torch.func.vjp(self.f, x)[:2]
        if y.shape != x.shape:  # parameters broadcast against x
            return self.value_and_slope(x.expand(y.shape))
        (slope,) = pull(torch.ones_like(y))
        return y, slope

    def _call(self, x: Tensor) -> Tensor:
        return self.f(x)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, slope = self.value_and_slope(x)
        return y, slope.log()

    def _inverse(self, y: Tensor) -> Tensor:
        with torch.no_grad():
            low, high = bracket(self.f, y.detach(), self.bound)
        return find_root(self.value_and_slope, y, low, high, self.eps)
