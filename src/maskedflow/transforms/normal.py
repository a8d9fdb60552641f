"""The normal distribution far out: logarithms of its tails, without cancellation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LOG_2 = math.log(2)
LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


def normal_tail(v: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`\log \Phi(v)` and :math:`\log \phi(v) - \log \Phi(v)`, both in nats.

    Below zero, :math:`\Phi(v) = \frac{1}{2} e^{-v^2 / 2} \operatorname{erfcx}(-v / \sqrt{2})`: the
    square is left out of the second result, which therefore is as accurate at -1e6 as at -1.

    Example:
        >>> normal_tail(torch.tensor(-1e6))
        (tensor(-5.0000e+11), tensor(13.8155))
    """
    below = v < 0
    log_scaled = torch.special.erfcx(-math.sqrt(0.5) * v.clamp(max=0)).log()
    log_upper = torch.log1p(-0.5 * torch.erfc(math.sqrt(0.5) * v.clamp(min=0)))
    half_square = 0.5 * v.square()
    log_cdf = torch.where(below, log_scaled - half_square - LOG_2, log_upper)
    log_hazard = torch.where(
        below, LOG_2 - LOG_SQRT_2_PI - log_scaled, -half_square - LOG_SQRT_2_PI - log_upper
    )
    return log_cdf, log_hazard


def normal_quantile_of_log(log_p: Tensor) -> Tensor:
    r"""The t for which :math:`\log \Phi(t)` is given, for probabilities up to a half.

    Example:
        >>> normal_quantile_of_log(torch.tensor([-5e11, -0.6931472]))
        tensor([-1000000.,        0.])
    """
    t: Tensor = _QuantileOfLog.apply(log_p)  # type: ignore[no-untyped-call]
    return t


class _QuantileOfLog(torch.autograd.Function):
    """Newton's method from the left, where the tangents of a concave function never overshoot."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_p: Tensor) -> Tensor:
        # Phi(t) is at most exp(-t^2 / 2) / 2.
        t = -(-2 * (log_p + LOG_2)).clamp(min=0).sqrt()
        for _ in range(5):
            log_cdf, log_hazard = normal_tail(t)
            t = t - (log_cdf - log_p) * torch.exp(-log_hazard)
        return t

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (t,) = ctx.saved_tensors
        return gradient * torch.exp(-normal_tail(t)[1])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (t,) = ctx.saved_tensors
        return tangent * torch.exp(-normal_tail(t)[1])
