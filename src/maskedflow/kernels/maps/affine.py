"""z = x exp(a) + b, see `MonotonicAffineTransform`: b, a; the bound of a."""

from __future__ import annotations

from typing import Any

from maskedflow.kernels.elementary import exp
from maskedflow.kernels.tile import jit


@jit
def evaluate(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From data to latents."""
    limit = x.dtype.type(constants[0])
    for j in range(x.size):
        log_scale = min(max(phi[1, j], -limit), limit)
        x[j] = x[j] * exp(log_scale) + phi[0, j]
        ladj[j] += log_scale


@jit
def differentiate(phi: Any, constants: Any, x: Any, ladj: Any, dphi: Any, dx: Any) -> None:
    """The gradients."""
    limit = x.dtype.type(constants[0])
    zero = x.dtype.type(0)
    for j in range(x.size):
        log_scale = phi[1, j]
        through = dx[j] * exp(min(max(log_scale, -limit), limit))
        steep = through * x[j] + ladj[j]
        dphi[0, j] = dx[j]
        dphi[1, j] = zero if abs(log_scale) >= limit else steep
        dx[j] = through


@jit
def invert(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From latents to data."""
    limit = x.dtype.type(constants[0])
    for j in range(x.size):
        log_scale = min(max(phi[1, j], -limit), limit)
        x[j] = (x[j] - phi[0, j]) * exp(-log_scale)
        ladj[j] -= log_scale
