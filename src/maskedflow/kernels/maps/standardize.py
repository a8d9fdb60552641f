"""z = (x - m) / s, see `Standardize`: m, s."""

from __future__ import annotations

from typing import Any

from maskedflow.kernels.elementary import log
from maskedflow.kernels.tile import jit


@jit
def evaluate(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From data to latents."""
    for j in range(x.size):
        x[j] = (x[j] - phi[0, j]) / phi[1, j]
        ladj[j] -= log(phi[1, j])


@jit
def differentiate(phi: Any, constants: Any, x: Any, ladj: Any, dphi: Any, dx: Any) -> None:
    """The gradients."""
    for j in range(x.size):
        through = dx[j] / phi[1, j]
        dphi[0, j] = -through
        dphi[1, j] = -(through * (x[j] - phi[0, j]) + ladj[j]) / phi[1, j]
        dx[j] = through


@jit
def invert(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From latents to data."""
    for j in range(x.size):
        x[j] = x[j] * phi[1, j] + phi[0, j]
        ladj[j] += log(phi[1, j])
