"""z = exp(p / 2) (x - m), see `MeanPrecisionTransform`: m, p; the bound of p."""

from __future__ import annotations

from typing import Any

from maskedflow.kernels.elementary import exp
from maskedflow.kernels.tile import jit


@jit
def evaluate(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From data to latents."""
    limit, half = x.dtype.type(constants[0]), x.dtype.type(0.5)
    for j in range(x.size):
        log_scale = half * min(max(phi[1, j], -limit), limit)
        x[j] = (x[j] - phi[0, j]) * exp(log_scale)
        ladj[j] += log_scale


@jit
def differentiate(phi: Any, constants: Any, x: Any, ladj: Any, dphi: Any, dx: Any) -> None:
    """The gradients."""
    limit, half = x.dtype.type(constants[0]), x.dtype.type(0.5)
    zero = x.dtype.type(0)
    for j in range(x.size):
        log_precision = phi[1, j]
        through = dx[j] * exp(half * min(max(log_precision, -limit), limit))
        steep = half * (through * (x[j] - phi[0, j]) + ladj[j])
        dphi[0, j] = -through
        dphi[1, j] = zero if abs(log_precision) > limit else steep
        dx[j] = through


@jit
def invert(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From latents to data."""
    limit, half = x.dtype.type(constants[0]), x.dtype.type(0.5)
    for j in range(x.size):
        log_scale = half * min(max(phi[1, j], -limit), limit)
        x[j] = x[j] * exp(-log_scale) + phi[0, j]
        ladj[j] -= log_scale
