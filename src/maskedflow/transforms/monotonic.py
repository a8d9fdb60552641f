"""Increasing functions of one feature that are inverted by finding roots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.staircase import is_traced

from .base import Transform, UnivariateTransform, call_and_ladj
from .logistic import sigmoid
from .univariate import MonotonicAffineTransform

#: How much a bracket that holds no root grows at a time, and how often: up to float32's largest.
GROWTH, MOST_GROWTHS = 64, 22
#: Enough to halve any bracket down to its rounding, even if every other step is Newton's.
MOST_STEPS = 120


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


class ResidualTransform(MonotonicTransform):
    r"""A share of the way from x to an increasing map's value: again an increasing map.

    .. math:: g(x) = x + \alpha (f(x) - x), \qquad
        \log g'(x) = \log (1 - \alpha + \alpha f'(x))

    The forward direction costs what that of f costs. The inverse is found as a root.

    Args:
        base: The increasing map :math:`f` of one feature.
        share: The share :math:`\alpha`, from 0 to 1, which broadcasts against x.

    Example:
        >>> g = ResidualTransform(torch.distributions.ExpTransform(), torch.tensor(0.5))
        >>> g.call_and_ladj(torch.tensor(0.0))
        (tensor(0.5000), tensor(0.))
    """

    def __init__(self, base: TorchTransform, share: Tensor) -> None:
        super().__init__()
        self.base = base
        self.share = share

    def __repr__(self) -> str:
        return f"ResidualTransform({self.base})"

    def f(self, x: Tensor) -> Tensor:
        return torch.lerp(x, self.base(x), self.share)

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, ladj = call_and_ladj(self.base, x)
        return torch.lerp(x, y, self.share), 1 + self.share * torch.expm1(ladj)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, ladj = call_and_ladj(self.base, x)
        return torch.lerp(x, y, self.share), torch.log1p(self.share * torch.expm1(ladj))


class Residual(nn.Module):
    r"""A `univariate` for any transform: maps that go a learned share :math:`\alpha` of the way.

    .. math:: z_i = x_i + \alpha (f(x_i \mid \phi_i) - x_i), \qquad \alpha \in (0, 1)

    Each transform learns a share of its own. The slope of its maps stays above
    :math:`1 - \alpha`, so that no layer can squeeze a feature to a point. Where f is affine the
    residual map is affine too: that is another parameterization, not a richer flow, and its inverse
    costs as little.

    Args:
        univariate: The constructor of the increasing map :math:`f`.
        share: The share to begin with.

    Raises:
        ValueError: If the share is not between 0 and 1.

    Example:
        >>> from maskedflow.flows import MAF
        >>> flow = MAF(3, transforms=2, univariate=Residual())
        >>> x = torch.randn(5, 3)
        >>> z, ladj = flow().transform.call_and_ladj(x)
        >>> torch.allclose(flow().transform.inv(z), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        univariate: Callable[..., TorchTransform] = MonotonicAffineTransform,
        share: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"share: expected a number between 0 and 1, got {share}")
        self.univariate = univariate
        self.logit = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    @property
    def share(self) -> Tensor:
        r"""The share :math:`\alpha`."""
        return sigmoid(self.logit)

    def extra_repr(self) -> str:
        return f"(univariate): {getattr(self.univariate, '__name__', self.univariate)}"

    def forward(self, *phi: Tensor) -> Transform:
        """Makes the residual map of features whose own maps have the parameters `phi`."""
        base, share = self.univariate(*phi), self.share
        if type(base) is MonotonicAffineTransform:
            log_scale = torch.log1p(share * torch.expm1(base.log_scale))
            return MonotonicAffineTransform(share * base.shift, log_scale)
        return ResidualTransform(base, share)


def find_root(
    value_and_slope: Callable[[Tensor], tuple[Tensor, Tensor]],
    y: Tensor,
    low: Tensor,
    high: Tensor,
    eps: float | Tensor,
    start: Tensor | None = None,
) -> Tensor:
    r"""Solves f(x) = y for an increasing f, to the precision of the dtype.

    Newton's steps halve the steps before them and stay within the bracket, or the bracket is
    halved. The two last steps are Newton's, seen by autograd, so that x has gradients by whatever y
    and f depend on: a step from a constant start is right in the first derivative, two are in the
    second, too.

    The function is given as one that returns f(x) and f'(x), element by element, and the roots as
    being in intervals, with the shape of f(y). The search begins at `start`, or in the middle, and
    ends where a step is below `eps`, for then two more steps of Newton's method are enough.

    Raises:
        NotImplementedError: Under torch.export, whose programs have no loops.

    Example:
        >>> y, low = torch.tensor([-27.0, 8e6]), torch.tensor([-1e3, -1e3])
        >>> find_root(lambda x: (x**3, 3 * x**2), y, low, -low, 1e-6)
        tensor([ -3., 200.])
    """
    if torch.compiler.is_exporting():
        raise NotImplementedError("it searches for roots, in as many steps as they take")
    with torch.no_grad():
        x, reach = _search(value_and_slope, y.detach(), low, high, eps, start)
    tiny = torch.finfo(y.dtype).tiny
    for _ in range(2):
        value, slope = value_and_slope(x)
        error, slope = value - y, slope.clamp(min=tiny)
        # Where f is flat a rounding error would make the step endless.
        step = (error / slope).detach().clamp(-reach, reach)
        x = x - step - (error - error.detach()) / slope
    return x


def _search(
    value_and_slope: Callable[[Tensor], tuple[Tensor, Tensor]],
    y: Tensor,
    low: Tensor,
    high: Tensor,
    eps: float | Tensor,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """A point near the root, and how far away it may be."""
    x = low / 2 + high / 2 if start is None else start
    precision = 4 * torch.finfo(y.dtype).eps
    step = step_before = high - low
    for _ in range(MOST_STEPS):
        value, slope = value_and_slope(x)
        is_above = value > y
        low, high = torch.where(is_above, low, x), torch.where(is_above, x, high)
        newton = x - (value - y) / slope
        # False where the slope is 0 or something is NaN, too.
        is_good = (low <= newton) & (newton <= high) & (2 * (newton - x).abs() <= step_before)
        new = torch.where(is_good, newton, low / 2 + high / 2)
        step, step_before, x = (new - x).abs(), step, new
        if not is_traced() and (step <= eps + precision * x.abs()).all():
            break
    return x, torch.maximum(high - low, eps + precision * x.abs())


def bracket(f: Callable[[Tensor], Tensor], y: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Intervals that hold the roots of f(x) = y: [-bound, bound], or further out if need be."""
    shape = f(torch.full_like(y, -bound)).shape  # parameters may broadcast against y
    low, high = y.new_full(shape, -bound), y.new_full(shape, bound)
    furthest = torch.finfo(y.dtype).max / 4
    for _ in range(MOST_GROWTHS):
        is_below, is_above = f(low) > y, f(high) < y
        if not is_traced() and not (is_below | is_above).any():
            break
        low, high = (
            torch.where(is_below, (GROWTH * low).clamp(min=-furthest), low.where(~is_above, high)),
            torch.where(is_above, (GROWTH * high).clamp(max=furthest), high.where(~is_below, low)),
        )
    return low, high
