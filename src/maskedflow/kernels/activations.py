"""Activations and their slopes, on rows of a panel."""

from __future__ import annotations

import math
from typing import Any

from maskedflow.kernels import Activation

from .elementary import exp, tanh
from .tile import jit


@jit
def activate(code: int, parameter: float, total: Any) -> None:
    """Replaces sums by their activations."""
    one = total.dtype.type(1)
    zero = total.dtype.type(0)
    a = total.dtype.type(parameter)
    if code == Activation.RELU:
        for j in range(total.size):
            total[j] = max(total[j], zero)
    elif code == Activation.LEAKY_RELU:
        for j in range(total.size):
            total[j] = total[j] if total[j] > zero else a * total[j]
    elif code == Activation.SILU:
        for j in range(total.size):
            total[j] = total[j] / (one + exp(-total[j]))
    elif code == Activation.SIGMOID:
        for j in range(total.size):
            total[j] = one / (one + exp(-total[j]))
    elif code == Activation.TANH:
        for j in range(total.size):
            total[j] = tanh(total[j])
    elif code == Activation.ELU:
        for j in range(total.size):
            # exp(t) - 1 = 2 h / (1 - h), h = tanh(t / 2), does not cancel near zero.
            half = tanh(min(total[j], zero) / (one + one))
            total[j] = total[j] if total[j] > zero else a * (half + half) / (one - half)
    elif code == Activation.SOFTPLUS:
        for j in range(total.size):
            t = total[j]
            total[j] = t if t > 20 else math.log1p(math.exp(t))
    else:
        for j in range(total.size):
            t = total[j]
            total[j] = t * (one + math.erf(t * total.dtype.type(math.sqrt(0.5)))) / (one + one)


@jit
def slope(code: int, parameter: float, total: Any, activation: Any, gradient: Any) -> None:
    """Multiplies gradients with a'(total); `activation` is a(total)."""
    one = total.dtype.type(1)
    zero = total.dtype.type(0)
    a = total.dtype.type(parameter)
    if code == Activation.RELU:
        for j in range(total.size):
            gradient[j] = gradient[j] if activation[j] > zero else zero
    elif code == Activation.LEAKY_RELU:
        for j in range(total.size):
            gradient[j] = gradient[j] if total[j] > zero else a * gradient[j]
    elif code == Activation.SILU:
        for j in range(total.size):
            s = one / (one + exp(-total[j]))
            gradient[j] *= s * (one + total[j] * (one - s))
    elif code == Activation.SIGMOID:
        for j in range(total.size):
            gradient[j] *= activation[j] * (one - activation[j])
    elif code == Activation.TANH:
        for j in range(total.size):
            gradient[j] *= one - activation[j] * activation[j]
    elif code == Activation.ELU:
        for j in range(total.size):
            gradient[j] = gradient[j] if total[j] > zero else gradient[j] * (activation[j] + a)
    elif code == Activation.SOFTPLUS:
        for j in range(total.size):
            gradient[j] = gradient[j] if total[j] > 20 else gradient[j] / (one + exp(-total[j]))
    else:
        half = total.dtype.type(0.5)
        density = total.dtype.type(math.sqrt(0.5 / math.pi))
        for j in range(total.size):
            t = total[j]
            below = half * (one + math.erf(t * total.dtype.type(math.sqrt(0.5))))
            gradient[j] *= below + t * density * exp(-half * t * t)
