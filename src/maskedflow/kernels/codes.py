"""What programs and the compiled kernel call operations, activations and univariate maps."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """What an operation of a program does."""

    PRODUCT = 0
    ACTIVATE = 1
    ADD = 2
    INVERT = 3
    SLOPE = 4
    SOLVE = 5


class Activation(IntEnum):
    """The activations that the kernel knows, see `maps.activate` and `maps.slope`."""

    RELU = 0
    TANH = 1
    ELU = 2
    LEAKY_RELU = 3
    SILU = 4
    SIGMOID = 5
    SOFTPLUS = 6
    GELU = 7


class Map(IntEnum):
    """The univariate maps that the kernel inverts, see `maps.invert`."""

    AFFINE = 0
    SPLINE = 1


#: What the kernel calls a univariate map, and the numbers that it takes beside its parameters.
Kernel = tuple[Map, tuple[float, ...]]
