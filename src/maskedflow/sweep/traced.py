"""A sweep in operations that write nothing in place, for torch.export, torch.compile, torch.func.

They see the graph of a sweep, whose steps are narrow products, where an inverse by passes would
show them the whole network once a generation.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from maskedflow.kernels import Code
from maskedflow.nn import MaskedLinear, MaskedMLP
from maskedflow.staircase import Operation

from .plan import Plan
from .run import Univariate


class Strips:
    """Numbers of N samples by row, in strips of shape (N, rows), as they were written.

    Example:
        >>> strips = Strips()
        >>> strips.write(0, torch.zeros(2, 5))
        >>> strips.write(1, torch.ones(2, 3))
        >>> strips.read(0, 3)
        tensor([[0., 1., 1.],
                [0., 1., 1.]])
    """

    def __init__(self) -> None:
        self._strips: dict[int, Tensor] = {}

    def read(self, row: int, rows: int) -> Tensor:
        """The numbers of some rows, with shape (N, rows)."""
        parts = self._between(row, row + rows)
        found = [part for _, part in sorted(parts.items())]
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)

    def write(self, row: int, value: Tensor) -> None:
        """Puts numbers in the places of those of the rows from `row` on."""
        end = row + value.shape[-1]
        last = max((first + strip.shape[-1] for first, strip in self._strips.items()), default=0)
        rest = self._between(0, row) | self._between(end, max(last, end))
        self._strips = rest | {row: value}

    def _between(self, start: int, end: int) -> dict[int, Tensor]:
        parts = {}
        for first, strip in self._strips.items():
            left, right = max(start, first), min(end, first + strip.shape[-1])
            if left < right:
                whole = right - left == strip.shape[-1]
                parts[left] = strip if whole else strip[:, left - first : right - first]
        return parts


def trace(
    conditioner: MaskedMLP,
    plan: Plan,
    univariate: Univariate,
    z: Tensor,
    first: Tensor,
) -> tuple[Tensor, Tensor]:
    """Inverts rows z as :func:`~maskedflow.sweep.invert` does, given the first bias.

    Anything differentiates it, any number of times.
    """
    layout = plan.layout
    layers = cast(list[MaskedLinear], list(conditioner.layers))
    weights = [layer.dense() for layer in layers]
    biases = [first, *(layer.added_bias(None) for layer in layers[1:])]
    rows, ladjs = Strips(), []
    rows.write(layout.inputs, z)
    for row, bias in zip(layout.sums, biases, strict=True):
        rows.write(row, bias.expand(z.shape[0], -1))

    def product(one: Operation) -> Tensor:
        row, column = one.out - layout.sums[one.layer], one.source - layout.levels[one.layer]
        weight = weights[one.layer][row : row + one.rows, column : column + one.columns]
        return rows.read(one.out, one.rows) + F.linear(rows.read(one.source, one.columns), weight)

    for one in plan.inverse.operations:
        match one.code:
            case Code.PRODUCT:
                value = product(one)
            case Code.ACTIVATE:
                value = conditioner.activation(rows.read(one.source, one.rows))
            case Code.ADD:
                value = rows.read(one.out, one.rows) + rows.read(one.source, one.rows)
            case _:
                phi = rows.read(one.layer, one.rows * one.columns)
                inverse = univariate(phi.unflatten(-1, (one.rows, one.columns))).inv
                value, ladj = inverse.call_and_ladj(rows.read(one.source, one.rows))
                ladjs.append(ladj)
        rows.write(one.out, value)
    return rows.read(layout.inputs, plan.features), torch.cat(ladjs, dim=-1).sum(dim=-1)
