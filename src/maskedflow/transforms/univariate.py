"""Monotone maps of one feature, whose parameters a conditioner predicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from maskedflow.kernels import Kernel, Map
from maskedflow.staircase import is_traced

from .base import UnivariateTransform


class MonotonicAffineTransform(UnivariateTransform):
    r"""The affine map of one feature with a positive slope.

    .. math:: f(x) = x \exp(a) + b

    The log-scale :math:`a` is clamped to :math:`[\log \epsilon, -\log \epsilon]`, by default
    :math:`[-10, 10]`: no exponential overflows. Both directions cost one multiplication.

    Args:
        shift: The shift :math:`b`, with shape (*,).
        scale: The log-scale :math:`a`, with shape (*,).
        slope: The smallest slope :math:`\epsilon`.

    References:
        | Masked Autoregressive Flow (Papamakarios et al., 2017), equation 3
        | https://arxiv.org/abs/1705.07057

    Example:
        >>> f = MonotonicAffineTransform(torch.tensor(1.0), torch.tensor(0.0))
        >>> f.call_and_ladj(torch.tensor(2.0))
        (tensor(3.), tensor(0.))
        >>> MonotonicAffineTransform(torch.tensor(0.0), torch.tensor(99.0)).log_scale
        tensor(10.)
    """

    def __init__(self, shift: Tensor, scale: Tensor, slope: float = math.exp(-10)) -> None:
        super().__init__()
        self.bound = -math.log(slope)
        self.shift = shift
        self.scale = scale

    @property
    def log_scale(self) -> Tensor:
        """The clamped log-scale."""
        return self.scale.clamp(-self.bound, self.bound)

    @property
    def kernel(self) -> Kernel | None:
        """What the compiled sweep calls this map of scalars, and its parameters."""
        return None if self.shift.ndim or self.scale.ndim else (Map.AFFINE, (self.bound,))

    def _call(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.log_scale.exp())

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.shift) * torch.exp(-self.log_scale)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.log_scale.expand(x.shape)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape == self.shift.shape == self.scale.shape and not is_traced():
            y, log_scale = _Affine.apply(x, self.shift, self.scale, self.bound)  # type: ignore[no-untyped-call]
            return y, log_scale
        log_scale = self.log_scale
        y = torch.addcmul(self.shift, x, log_scale.exp())
        return y, log_scale.expand(y.shape)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        log_scale = self.log_scale
        x = (y - self.shift) * torch.exp(-log_scale)
        return x, -log_scale.expand(x.shape)


class _Affine(torch.autograd.Function):
    """The affine map and its log-scale as one node of the graph: small networks feel each one."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, bound: float
    ) -> tuple[Tensor, Tensor]:
        log_scale = scale.clamp(-bound, bound)
        slope = log_scale.exp()
        ctx.save_for_backward(x, scale, slope)
        ctx.bound = bound
        return torch.addcmul(shift, x, slope), log_scale

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dl: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted
            slope = scale.clamp(-ctx.bound, ctx.bound).exp()
        through = dy * slope
        # Nothing gets past the clamp.
        log_scale = torch.addcmul(dl, through, x)
        log_scale = torch.ops.aten.hardtanh_backward(log_scale, scale, -ctx.bound, ctx.bound)
        return through if ctx.needs_input_grad[0] else None, dy, log_scale, None


class MeanPrecisionTransform(UnivariateTransform):
    r"""The affine map that standardises a Gaussian conditional, as the MAF paper writes it.

    .. math:: f(x) = \exp(p / 2) (x - m)

    The same family as :class:`MonotonicAffineTransform`, with other parameters: a mean that moves
    does not change how a scale has to. Both directions cost one multiplication.

    Args:
        mean: The mean :math:`m`, with shape (*,).
        log_precision: The logarithm of the precision :math:`p`, with shape (*,), clamped to
            :math:`[-20, 20]`.

    References:
        | Masked Autoregressive Flow (Papamakarios et al., 2017), appendix D
        | https://arxiv.org/abs/1705.07057

    Example:
        >>> f = MeanPrecisionTransform(torch.tensor(1.0), torch.tensor(0.0))
        >>> f.call_and_ladj(torch.tensor(3.0))
        (tensor(2.), tensor(0.))
    """

    def __init__(self, mean: Tensor, log_precision: Tensor) -> None:
        super().__init__()
        self.mean = mean
        self.log_scale = 0.5 * log_precision.clamp(-20, 20)

    @property
    def kernel(self) -> Kernel | None:
        """What the compiled sweep calls this map of scalars, and its parameters."""
        return None if self.mean.ndim or self.log_scale.ndim else (Map.GAUSSIAN, (20.0,))

    def _call(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.log_scale.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.addcmul(self.mean, y, torch.exp(-self.log_scale))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.log_scale.expand(torch.broadcast_shapes(x.shape, y.shape))


class AdditiveTransform(UnivariateTransform):
    r"""The shift of one feature, which keeps volumes.

    .. math:: f(x) = x + b

    Args:
        shift: The shift :math:`b`, with shape (*,).

    References:
        NICE (Dinh et al., 2014), section 3.2, https://arxiv.org/abs/1410.8516

    Example:
        >>> AdditiveTransform(torch.tensor(1.0))(torch.tensor(2.0))
        tensor(3.)
    """

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.shift = shift

    @property
    def kernel(self) -> Kernel | None:
        """What the compiled sweep calls this map of scalars."""
        return None if self.shift.ndim else (Map.ADDITIVE, ())

    def _call(self, x: Tensor) -> Tensor:
        return x + self.shift

    def _inverse(self, y: Tensor) -> Tensor:
        return y - self.shift

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(torch.broadcast_shapes(x.shape, y.shape))


#: Maps by name, as a flow takes them for its `univariate`, and the shapes of their parameters.
UNIVARIATES: dict[str, tuple[Callable[..., UnivariateTransform], tuple[tuple[int, ...], ...]]] = {
    "affine": (MonotonicAffineTransform, ((), ())),
    "gaussian": (MeanPrecisionTransform, ((), ())),
    "additive": (AdditiveTransform, ((),)),
}
