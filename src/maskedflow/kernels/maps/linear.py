"""z = s x exp(a) + b, see `LULinear`: b, a, s, a sign."""

from __future__ import annotations

from typing import Any

from maskedflow.kernels.elementary import exp
from maskedflow.kernels.tile import jit


@jit
def evaluate(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From data to latents."""
    for j in range(x.size):
        x[j] = phi[2, j] * exp(phi[1, j]) * x[j] + phi[0, j]
        ladj[j] += phi[1, j]


@jit
def differentiate(phi: Any, constants: Any, x: Any, ladj: Any, dphi: Any, dx: Any) -> None:
    """The gradients."""
    for j in range(x.size):
        through = phi[2, j] * exp(phi[1, j]) * dx[j]
        dphi[0, j] = dx[j]
        dphi[1, j] = through * x[j] + ladj[j]
        dphi[2, j] = dphi[1, j] / phi[2, j]
        dx[j] = through


@jit
def invert(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From latents to data."""
    for j in range(x.size):
        x[j] = (x[j] - phi[0, j]) * exp(-phi[1, j]) * phi[2, j]
        ladj[j] -= phi[1, j]
