"""Preprocessing as transforms, so that a density is always one of the data in their own units."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import SigmoidTransform, constraints, transform_to

from maskedflow.chain import Step
from maskedflow.kernels import Map

from .base import (
    DependentTransform,
    Transform,
    UnivariateTransform,
    VectorTransform,
    check_features,
)
from .lazy import LazyTransform, elementwise_step
from .logistic import sigmoid, softplus


class ScaleTransform(VectorTransform):
    r"""The element-wise map :math:`f(x) = (x - m) / s` of a vector, with s > 0.

    Args:
        loc: The location :math:`m`, a number or with shape (*, D).
        log_scale: The logarithm of the scale :math:`s`, alike.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        super().__init__()
        self.loc = loc
        self.log_scale = log_scale

    def __repr__(self) -> str:
        return f"ScaleTransform(shape={tuple(self.loc.shape)})"

    def _check(self, name: str, value: Tensor) -> None:
        if self.loc.ndim:
            check_features(name, value, self.loc.shape[-1])

    def _call(self, x: Tensor) -> Tensor:
        self._check("x", x)
        return (x - self.loc) * torch.exp(-self.log_scale)

    def _inverse(self, y: Tensor) -> Tensor:
        self._check("z", y)
        return y * torch.exp(self.log_scale) + self.loc

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(x.shape, y.shape)
        return -self.log_scale.expand(shape).sum(dim=-1)


class _UnitInterval(constraints.Constraint):
    """The unit interval: closed and up to rounding where it is squeezed, else open."""

    def __init__(self, closed: bool) -> None:
        self.closed = closed

    def __repr__(self) -> str:
        return "UnitInterval([0, 1])" if self.closed else "UnitInterval((0, 1))"

    def check(self, value: Tensor) -> Tensor:
        # A pixel that is scaled may round to a number a little beyond 1.
        margin = 8 * torch.finfo(value.dtype).eps
        if self.closed:
            return (-margin <= value) & (value <= 1 + margin)
        return (value > 0) & (value < 1)


@transform_to.register(_UnitInterval)  # type: ignore[untyped-decorator]
def _to_unit_interval(_: _UnitInterval) -> SigmoidTransform:
    return SigmoidTransform()


class LogitTransform(UnivariateTransform):
    r"""The map of the unit interval to the real line, squeezed away from its ends.

    .. math:: f(x) = \operatorname{logit}(\alpha + (1 - 2 \alpha) x)

    Args:
        alpha: The squeeze :math:`\alpha`, in [0, 1/2).

    References:
        | Masked Autoregressive Flow (Papamakarios et al., 2017), section 4.3
        | https://arxiv.org/abs/1705.07057

    Example:
        >>> LogitTransform(0.05)(torch.tensor([0.5]))
        tensor([0.])
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ValueError(f"alpha: expected a number in [0, 0.5), got {alpha}")
        self.alpha = alpha
        self.domain = _UnitInterval(closed=alpha > 0)

    def __repr__(self) -> str:
        return f"LogitTransform(alpha={self.alpha})"

    def _call(self, x: Tensor) -> Tensor:
        return torch.logit(self.alpha + (1 - 2 * self.alpha) * x)

    def _inverse(self, y: Tensor) -> Tensor:
        return (sigmoid(y) - self.alpha) / (1 - 2 * self.alpha)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return math.log1p(-2 * self.alpha) + softplus(y) + softplus(-y)


class _NarrowTransform(VectorTransform):
    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.like = like

    def __repr__(self) -> str:
        return "Narrow()"

    def _call(self, x: Tensor) -> Tensor:
        return x.to(self.like)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.double()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return y.new_zeros(y.shape[:-1])


class Narrow(LazyTransform):
    """The step from float64, in which large numbers are told apart, to a flow's own dtype.

    It comes after what brings numbers near to zero, and makes a flow one that takes float64.

    Example:
        >>> x = torch.tensor([[1.26e9 + 0.5]], dtype=torch.float64)
        >>> shift = Standardize(torch.tensor([1.26e9], dtype=torch.float64), 1.0)
        >>> Narrow()(None)(shift()(x))
        tensor([[0.5000]])
    """

    like: Tensor

    is_fixed = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, c: Tensor | None = None) -> Transform:
        return _NarrowTransform(self.like)


class Logit(LazyTransform):
    """The lazy :class:`LogitTransform` of all features, from the unit interval to the real line.

    Example:
        >>> Logit(0.05)()(torch.tensor([0.5, 1.0]))
        tensor([0.0000, 2.9444])
    """

    is_fixed = True

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.transform = LogitTransform(alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.transform.alpha}"

    def forward(self, c: Tensor | None = None) -> Transform:
        return DependentTransform(self.transform, 1)


class Standardize(LazyTransform):
    r"""Standardises each feature: :math:`y = (x - m) / s`.

    Args:
        loc: The location :math:`m`, a number or with shape (D,).
        scale: The scale :math:`s`, positive, a number or with shape (D,).

    Raises:
        ValueError: If a scale is not positive and finite.

    Example:
        >>> Standardize.fit(torch.tensor([[1.0], [3.0]]))()(torch.tensor([5.0]))
        tensor([3.])
    """

    positive = ("scale",)
    loc: Tensor
    scale: Tensor

    is_fixed = True

    def __init__(self, loc: float | Tensor, scale: float | Tensor) -> None:
        super().__init__()
        loc, scale = torch.as_tensor(loc), torch.as_tensor(scale)
        dtype = torch.promote_types(loc.dtype, scale.dtype)
        dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
        loc, scale = loc.to(dtype), scale.to(dtype)
        for column, value in enumerate(scale.reshape(-1).tolist()):
            if not 0 < value < math.inf:
                raise ValueError(
                    f"scale: expected positive finite numbers, got {value:g} for column {column}"
                )
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)

    @classmethod
    def fit(cls, x: Tensor) -> Standardize:
        """Takes mean and (biased) standard deviation from the rows of x, in float64."""
        variance, mean = torch.var_mean(x.double(), dim=0, correction=0)
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return cls(mean.to(dtype), variance.sqrt().to(dtype))

    def extra_repr(self) -> str:
        return f"shape={tuple(self.loc.shape)}"

    def forward(self, c: Tensor | None = None) -> Transform:
        return ScaleTransform(self.loc, self.scale.log())

    def steps(self) -> list[Step] | None:
        return elementwise_step(self, (Map.STANDARDIZE, ()), "loc", "scale")
