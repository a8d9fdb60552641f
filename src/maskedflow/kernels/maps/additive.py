"""z = x + b, see `AdditiveTransform`: b."""

from __future__ import annotations

from typing import Any

from maskedflow.kernels.tile import jit


@jit
def evaluate(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From data to latents."""
    for j in range(x.size):
        x[j] += phi[0, j]


@jit
def differentiate(phi: Any, constants: Any, x: Any, ladj: Any, dphi: Any, dx: Any) -> None:
    """The gradients."""
    for j in range(x.size):
        dphi[0, j] = dx[j]


@jit
def invert(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From latents to data."""
    for j in range(x.size):
        x[j] -= phi[0, j]
