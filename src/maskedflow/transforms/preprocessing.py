"""Preprocessing as transforms, so that a density is always one of the data in their own units."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import SigmoidTransform, constraints, transform_to

from .base import DependentTransform, Transform, check_features
from .lazy import LazyTransform

__all__ = ["Dequantize", "Logit", "LogitTransform", "ScaleTransform", "Standardize"]


class ScaleTransform(Transform):
    r"""The element-wise map :math:`f(x) = (x - m) / s` of a vector, with s > 0.

    Args:
        loc: The location :math:`m`, a number or with shape (*, D).
        log_scale: The logarithm of the scale :math:`s`, alike.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

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
        return -self.log_scale.expand(x.shape).sum(dim=-1)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._inverse(y), self.log_scale.expand(y.shape).sum(dim=-1)


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


class LogitTransform(Transform):
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

    codomain = constraints.real
    sign = +1

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
        return (torch.sigmoid(y) - self.alpha) / (1 - 2 * self.alpha)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return math.log1p(-2 * self.alpha) + F.softplus(y) + F.softplus(-y)


class _DequantizeTransform(Transform):
    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = False

    def __init__(self, step: Tensor, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.step = step
        self.draw = draw

    def __repr__(self) -> str:
        return "Dequantize()"

    def _call(self, x: Tensor) -> Tensor:
        step = self.step.to(x)
        y, end = x + step * self.draw(x), x + step
        # In float32 a sum may round up to the next value, which has a cell of its own.
        return torch.where(step > 0, y.minimum(torch.nextafter(end, x)), y)

    def _inverse(self, y: Tensor) -> Tensor:
        step = self.step.to(y)
        grid = torch.floor(y / step.clamp(min=torch.finfo(y.dtype).tiny)) * step
        return torch.where(step > 0, grid, y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


class Dequantize(LazyTransform):
    r"""Spreads each discrete value evenly over its cell: :math:`y = x + s u`, u uniform on [0, 1).

    The density of y integrates over a cell of volume :math:`\prod_i s_i` to the probability of x,
    so its logarithm, in expectation over u, is at most :math:`\log P(x) - \sum_i \log s_i`. The
    inverse is the lower corner of the cell that y lies in. The noise is its own generator's:
    :meth:`seed` starts it anew, for fresh noise each epoch and the same noise each evaluation.

    Args:
        step: The width :math:`s` of the cells, a number or one a feature; 0 for a continuous one.

    References:
        | A note on the evaluation of generative models (Theis et al., 2016), section 3.1
        | https://arxiv.org/abs/1511.01844

    Example:
        >>> dequantize = Dequantize()
        >>> y = dequantize()(torch.tensor([3.0, 7.0]))
        >>> dequantize().inv(y)
        tensor([3., 7.])
    """

    step: Tensor

    def __init__(self, step: float | Tensor = 1.0) -> None:
        super().__init__()
        step = torch.as_tensor(step, dtype=torch.float64)
        if (step < 0).any():
            raise ValueError("step: expected widths >= 0")
        self.register_buffer("step", step)
        self.generator = torch.Generator()
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Starts the noise anew from a seed."""
        self.generator.manual_seed(seed)
        self.before = self.generator.get_state()

    def rewind(self) -> None:
        """Lets the next noise be the last one again."""
        self.generator.set_state(self.before)

    def draw(self, like: Tensor) -> Tensor:
        """Draws the noise of a batch, uniform on [0, 1)."""
        source = self.generator
        self.before = source.get_state()
        noise = torch.rand(like.shape, dtype=like.dtype, device=source.device, generator=source)
        return noise.to(like.device)

    def forward(self, c: Tensor | None = None) -> Transform:
        return _DequantizeTransform(self.step, self.draw)


class Logit(LazyTransform):
    r"""The lazy :class:`LogitTransform` of all features, from the unit interval to the real line.

    Args:
        alpha: The squeeze :math:`\alpha`, in [0, 1/2).

    Example:
        >>> Logit(0.05)()(torch.tensor([0.5, 1.0]))
        tensor([0.0000, 2.9444])
    """

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

    loc: Tensor
    scale: Tensor

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
