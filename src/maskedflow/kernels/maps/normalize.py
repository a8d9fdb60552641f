"""z = exp(g) (x - m) / sqrt(v + eps) + b, see `BatchNorm` in evaluation: m, v, g, b; eps."""

from __future__ import annotations

from typing import Any

from maskedflow.kernels.elementary import exp, log
from maskedflow.kernels.tile import jit


@jit
def evaluate(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From data to latents."""
    half, eps = x.dtype.type(0.5), x.dtype.type(constants[0])
    for j in range(x.size):
        log_slope = phi[2, j] - half * log(phi[1, j] + eps)
        x[j] = (x[j] - phi[0, j]) * exp(log_slope) + phi[3, j]
        ladj[j] += log_slope


@jit
def differentiate(phi: Any, constants: Any, x: Any, ladj: Any, dphi: Any, dx: Any) -> None:
    """The gradients."""
    half, eps = x.dtype.type(0.5), x.dtype.type(constants[0])
    for j in range(x.size):
        through = dx[j] * exp(phi[2, j] - half * log(phi[1, j] + eps))
        by_slope = through * (x[j] - phi[0, j]) + ladj[j]
        dphi[0, j] = -through
        dphi[1, j] = -half * by_slope / (phi[1, j] + eps)
        dphi[2, j] = by_slope
        dphi[3, j] = dx[j]
        dx[j] = through


@jit
def invert(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From latents to data."""
    half, eps = x.dtype.type(0.5), x.dtype.type(constants[0])
    for j in range(x.size):
        log_slope = phi[2, j] - half * log(phi[1, j] + eps)
        x[j] = (x[j] - phi[3, j]) * exp(-log_slope) + phi[0, j]
        ladj[j] -= log_slope
