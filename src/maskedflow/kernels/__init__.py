"""Compiled loops for the CPU: programs run on rows of samples, by all threads of torch.

A *panel* holds some samples as rows of 256 bytes: row r is one number of each of them, a feature,
a hidden unit, a parameter. Beside a panel of values there may be one of *slopes*, whose row r is
the gradient by the values in row r. A program (see :mod:`maskedflow.staircase.program`) works on
such rows, and one panel after another is taken by whichever thread is free.
"""

from enum import IntEnum

from . import threads  # noqa: F401 - from now on, forked children compute alone

__all__ = [
    "AS_IT_IS",
    "AT_VALUES",
    "GROUP",
    "NO_GATE",
    "ONES",
    "ZEROS",
    "Activation",
    "Code",
    "Kernel",
    "Map",
    "Panel",
]

#: Rows that a product computes at a time, whose sums stay in registers. The products of a program
#: come in groups of so many, and the kernel's buffers hold one.
GROUP = 6
#: What rows may begin with in place of the numbers of a vector.
ZEROS, ONES, AS_IT_IS = -1, -2, -3
#: What a product's sums go through in the end: nothing, a ReLU, or a gate, that many values' rows
#: further on, which lets through what is beside something positive.
NO_GATE, RELU_GATE, AT_VALUES = 0, 1, 2


class Panel(IntEnum):
    """What an operation works on."""

    VALUES = 0
    SLOPES = 1


class Code(IntEnum):
    """What an operation of a program does."""

    FILL = 0
    PRODUCT = 1
    COPY = 2
    ADD = 3
    ACTIVATE = 4
    SLOPE = 5
    EVALUATE = 6
    DIFFERENTIATE = 7
    INVERT = 8
    SOLVE = 9
    NORMAL = 10
    NORMAL_SLOPE = 11
    GRADIENT = 12
    NEGATE = 13
    MASK = 14


class Activation(IntEnum):
    """The activations that the kernel knows, see `activations`."""

    RELU = 0
    TANH = 1
    ELU = 2
    LEAKY_RELU = 3
    SILU = 4
    SIGMOID = 5
    SOFTPLUS = 6
    GELU = 7


class Map(IntEnum):
    """The univariate maps that the kernel knows, see `maps`."""

    AFFINE = 0
    GAUSSIAN = 1
    ADDITIVE = 2
    SPLINE = 3
    MIXTURE = 4
    SCALE = 5
    STANDARDIZE = 6
    NORMALIZE = 7
    LINEAR = 8


#: What the kernel calls a univariate map, and the numbers that it takes beside its parameters.
Kernel = tuple[Map, tuple[float, ...]]
