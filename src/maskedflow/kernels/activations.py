"""Activations and their slopes, on rows of a panel.

An activation is a function that replaces sums by their activations, and one that multiplies
gradients with its derivative, given both sums and activations; `a` is its parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import carray  # type: ignore[attr-defined]

from maskedflow.kernels import Activation

from .elementary import exp, tanh
from .tile import jit, jit_as, pointer


@jit
def _relu(a: float, total: Any) -> None:
    zero = total.dtype.type(0)
    for j in range(total.size):
        total[j] = max(total[j], zero)


@jit
def _relu_slope(a: float, total: Any, activation: Any, gradient: Any) -> None:
    zero = total.dtype.type(0)
    for j in range(total.size):
        gradient[j] = gradient[j] if activation[j] > zero else zero


@jit
def _leaky_relu(a: float, total: Any) -> None:
    zero, slope = total.dtype.type(0), total.dtype.type(a)
    for j in range(total.size):
        total[j] = total[j] if total[j] > zero else slope * total[j]


@jit
def _leaky_relu_slope(a: float, total: Any, activation: Any, gradient: Any) -> None:
    zero, slope = total.dtype.type(0), total.dtype.type(a)
    for j in range(total.size):
        gradient[j] = gradient[j] if total[j] > zero else slope * gradient[j]


@jit
def _silu(a: float, total: Any) -> None:
    one = total.dtype.type(1)
    for j in range(total.size):
        total[j] = total[j] / (one + exp(-total[j]))


@jit
def _silu_slope(a: float, total: Any, activation: Any, gradient: Any) -> None:
    one = total.dtype.type(1)
    for j in range(total.size):
        s = one / (one + exp(-total[j]))
        gradient[j] *= s * (one + total[j] * (one - s))


@jit
def _sigmoid(a: float, total: Any) -> None:
    one = total.dtype.type(1)
    for j in range(total.size):
        total[j] = one / (one + exp(-total[j]))


@jit
def _sigmoid_slope(a: float, total: Any, activation: Any, gradient: Any) -> None:
    one = total.dtype.type(1)
    for j in range(total.size):
        gradient[j] *= activation[j] * (one - activation[j])


@jit
def _hyperbolic(a: float, total: Any) -> None:
    for j in range(total.size):
        total[j] = tanh(total[j])


@jit
def _hyperbolic_slope(a: float, total: Any, activation: Any, gradient: Any) -> None:
    one = total.dtype.type(1)
    for j in range(total.size):
        gradient[j] *= one - activation[j] * activation[j]


@jit
def _elu(a: float, total: Any) -> None:
    zero, one, depth = total.dtype.type(0), total.dtype.type(1), total.dtype.type(a)
    for j in range(total.size):
        # exp(t) - 1 = 2 h / (1 - h), h = tanh(t / 2), does not cancel near zero.
        half = tanh(min(total[j], zero) / (one + one))
        total[j] = total[j] if total[j] > zero else depth * (half + half) / (one - half)


@jit
def _elu_slope(a: float, total: Any, activation: Any, gradient: Any) -> None:
    zero, depth = total.dtype.type(0), total.dtype.type(a)
    for j in range(total.size):
        gradient[j] = gradient[j] if total[j] > zero else gradient[j] * (activation[j] + depth)


@jit
def _softplus(a: float, total: Any) -> None:
    for j in range(total.size):
        t = total[j]
        total[j] = t if t > 20 else math.log1p(math.exp(t))


@jit
def _softplus_slope(a: float, total: Any, activation: Any, gradient: Any) -> None:
    one = total.dtype.type(1)
    for j in range(total.size):
        gradient[j] = gradient[j] if total[j] > 20 else gradient[j] / (one + exp(-total[j]))


@jit
def _gelu(a: float, total: Any) -> None:
    one, root = total.dtype.type(1), total.dtype.type(math.sqrt(0.5))
    for j in range(total.size):
        t = total[j]
        total[j] = t * (one + math.erf(t * root)) / (one + one)


@jit
def _gelu_slope(a: float, total: Any, activation: Any, gradient: Any) -> None:
    one, root = total.dtype.type(1), total.dtype.type(math.sqrt(0.5))
    half, density = total.dtype.type(0.5), total.dtype.type(math.sqrt(0.5 / math.pi))
    for j in range(total.size):
        t = total[j]
        below = half * (one + math.erf(t * root))
        gradient[j] *= below + t * density * exp(-half * t * t)


#: The activations that the kernel knows.
TABLE: dict[Activation, tuple[Any, Any]] = {
    Activation.RELU: (_relu, _relu_slope),
    Activation.TANH: (_hyperbolic, _hyperbolic_slope),
    Activation.ELU: (_elu, _elu_slope),
    Activation.LEAKY_RELU: (_leaky_relu, _leaky_relu_slope),
    Activation.SILU: (_silu, _silu_slope),
    Activation.SIGMOID: (_sigmoid, _sigmoid_slope),
    Activation.SOFTPLUS: (_softplus, _softplus_slope),
    Activation.GELU: (_gelu, _gelu_slope),
}


def _activate(function: Any) -> Callable[[int, Any], None]:
    """The same of an address, where are: the address and number of sums, and of the constant."""

    def run(address: int, like: Any) -> None:
        arguments = carray(pointer(address, 0), (3,))
        total = carray(pointer(arguments[0], like), (arguments[1],))
        function(carray(pointer(arguments[2], 0.0), (1,))[0], total)

    return jit_as(f"run_{function.py_func.__module__}_{function.py_func.__name__}", run)  # type: ignore[no-any-return]


def _slope(function: Any) -> Callable[[int, Any], None]:
    """Alike, and then the addresses of activations and of gradients."""

    def run(address: int, like: Any) -> None:
        arguments = carray(pointer(address, 0), (5,))
        total = carray(pointer(arguments[0], like), (arguments[1],))
        activation = carray(pointer(arguments[3], like), (arguments[1],))
        gradient = carray(pointer(arguments[4], like), (arguments[1],))
        function(carray(pointer(arguments[2], 0.0), (1,))[0], total, activation, gradient)

    return jit_as(f"run_{function.py_func.__module__}_{function.py_func.__name__}", run)  # type: ignore[no-any-return]


#: The same by name, as `kernels.entries` compiles them.
FUNCTIONS = {
    f"{one.name.lower()}.{what}": adapt(pair[number])
    for one, pair in TABLE.items()
    for number, (what, adapt) in enumerate({"activate": _activate, "slope": _slope}.items())
}
