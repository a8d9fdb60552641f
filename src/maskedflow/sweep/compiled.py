"""The steps inside of a block by the compiled kernel: CPU, common activations and maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from .engine import Sweep

__all__ = ["CompiledForward", "activation_code", "compiled_reverse"]


def activation_code(activation: nn.Module) -> tuple[int, float] | None:
    """What the kernel calls an activation, and its parameter; None if it does not know it."""
    codes = {
        nn.ReLU: (0, 0.0),
        nn.Tanh: (1, 0.0),
        nn.ELU: (2, getattr(activation, "alpha", 0.0)),
        nn.LeakyReLU: (3, getattr(activation, "negative_slope", 0.0)),
        nn.SiLU: (4, 0.0),
        nn.Sigmoid: (5, 0.0),
        nn.Softplus: (6, 0.0),
        nn.GELU: (7, 0.0),
    }
    unusual = {"beta": 1, "threshold": 20, "approximate": "none"}
    if any(getattr(activation, name, value) != value for name, value in unusual.items()):
        return None
    return codes.get(type(activation))


class CompiledForward:
    """Goes through the generations of a block in compiled loops over the batch.

    Args:
        activation: The kernel's code of the activation, and its parameter.
        univariate: The kernel's code of the univariate map, and its parameters.
    """

    def __init__(
        self,
        activation: tuple[int, float],
        univariate: tuple[int, tuple[float, ...]],
    ) -> None:
        self.activation = activation
        self.univariate = univariate[0], np.array(univariate[1], np.float64)

    def __call__(self, sweep: Sweep, number: int, sums: Tensor) -> None:
        from .kernels import forward_kernel

        arrays = (sums, sweep.hidden, sweep.x, sweep.z, sweep.ladj)
        arguments: list[Any] = [*_description(sweep, number), *self.activation, *self.univariate]
        arguments += [array.numpy() for array in arrays]
        forward_kernel(*arguments)


def compiled_reverse(sweep: Sweep, number: int) -> None:
    """Goes back through the generations of a block in compiled loops over the batch."""
    from .kernels import reverse_kernel

    arrays = (
        sweep.hidden,
        sweep.slope_hidden,
        sweep.x,
        sweep.slope_x,
        sweep.z,
        sweep.slope_phi,
    )
    arguments: list[Any] = [*_description(sweep, number), *(array.numpy() for array in arrays)]
    reverse_kernel(*arguments)


def _description(sweep: Sweep, number: int) -> tuple[Any, Any, Any]:
    """A block in integers, how much is known after each generation, and its weights."""
    block = sweep.plan.blocks[number]
    return block.table, block.counts, sweep.weights.flat[number].numpy()
