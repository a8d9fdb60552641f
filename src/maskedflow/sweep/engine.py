"""The sweep over the blocks of a plan: matrix products between blocks, steps inside of them.

Everything is feature-major, (units, batch), so that a step reads and writes neighbouring rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from maskedflow.nn import MaskedLinear, MaskedMLP

from .plan import Block, Plan

__all__ = ["Forward", "Reverse", "Sweep", "Weights"]

#: What happens inside of a block, where each generation waits for the one before. Forward: finish
#: x, ladj and the hidden units of block `number`, given the pre-activations that earlier blocks
#: bring, all layers' rows below each other. Reverse: solve a block of the transposed Jacobian.
Forward = Callable[["Sweep", int, Tensor], None]
Reverse = Callable[["Sweep", int], None]


class Weights:
    """The masked weights of a conditioner, made once a sweep.

    Attributes:
        biases: The bias of each layer.
        inside: One list a block of one matrix a layer: the rows and columns within the block, rows
            as in the layer, columns in sweep order.
        flat: One vector a block, which holds its matrices one after the other.
    """

    def __init__(self, conditioner: MaskedMLP, plan: Plan) -> None:
        layers = cast(list[MaskedLinear], list(conditioner.layers))
        self.plan = plan
        self.biases = [cast(Tensor, layer.bias).detach() for layer in layers]
        self._slabs = [layer.stairs.slabs for layer in layers]
        self._weights = [layer.stairs.weights(layer.weight) for layer in layers]
        self.flat: list[Tensor] = []
        self.inside: list[list[Tensor]] = []
        for block in plan.blocks:
            shapes = [(piece.height, piece.width) for piece in block.pieces]
            sizes = [height * width for height, width in shapes]
            flat = self.biases[0].new_zeros(sum(sizes))
            parts = [p.view(shape) for p, shape in zip(flat.split(sizes), shapes, strict=True)]
            for level, part in enumerate(parts):
                self._fill(part, block, level)
            self.flat.append(flat)
            self.inside.append(parts)

    def before(self, block: Block, level: int) -> Tensor:
        """The rows of a block and the columns of the blocks before it."""
        return self._part(block, level, *block.pieces[level].before)

    def first(self, level: int) -> Tensor:
        """The units of degree 0, which see the context only, and those that they read."""
        rows, columns = self.plan.edges[level][1], self.plan.edges[level - 1][1]
        return self._weights[level][0][:rows, :columns]

    def _fill(self, weight: Tensor, block: Block, level: int) -> None:
        (low, high), slab = block.pieces[level].inside, self._slabs[level][block.pieces[level].slab]
        start, end = max(low, slab.left), min(high, slab.right)
        if not weight.numel() or start >= end:
            return
        part = self._part(block, level, start, end)
        if level == 0 and self.plan.descending:
            weight[:, high - end : high - start] = part.flip(1)
        else:
            weight[:, start - low : end - low] = part

    def _part(self, block: Block, level: int, start: int, end: int) -> Tensor:
        piece = block.pieces[level]
        slab, weight = self._slabs[level][piece.slab], self._weights[level][piece.slab]
        rows = weight[piece.rows[0] - slab.top : piece.rows[1] - slab.top]
        return rows[:, start - slab.left : end - slab.left]


class Sweep:
    """A batch on its way through the blocks.

    Args:
        weights: The weights.
        batch: The number of columns.

    Attributes:
        x: The features, with shape (features, batch).
        hidden: The hidden units, all layers' below each other, with shape (units, batch).
        starts: The first row of each hidden layer in `hidden`.
    """

    def __init__(self, weights: Weights, batch: int) -> None:
        self.weights, self.plan = weights, weights.plan
        like = weights.biases[-1]
        widths = [edge[-1] for edge in self.plan.edges]
        self.starts = [sum(widths[:level]) for level in range(len(widths))]
        self.x = like.new_zeros(self.plan.features, batch)
        self.hidden = like.new_empty(sum(widths), batch)
        self.ladj = like.new_zeros(batch)
        self.z = self.x
        self.slope_x = self.slope_phi = self.slope_hidden = self.x

    def level(self, level: int) -> Tensor:
        """What layer `level` reads: the features, or the hidden units below it."""
        if level == 0:
            return self.x
        start, edge = self.starts[level - 1], self.plan.edges[level - 1]
        return self.hidden[start : start + edge[-1]]

    def forward(
        self, z: Tensor, context: Tensor | None, activation: torch.nn.Module, inside: Forward
    ) -> None:
        """Inverts: fills `x` and `ladj` from z.

        Args:
            z: The latent, with shape (features, batch).
            context: What the context adds to the first layer, with shape (units, batch).
            activation: The activation.
            inside: The steps inside of a block.
        """
        plan, weights = self.plan, self.weights
        self.z = z
        sums: list[Tensor] = []
        for level, edge in enumerate(plan.edges):
            rows = edge[1]
            total = weights.biases[level][:rows, None].expand(rows, z.shape[1])
            if level == 0 and context is not None:
                total = total + context[:rows]
            elif level > 0 and rows and plan.edges[level - 1][1]:
                known = self.level(level)[: plan.edges[level - 1][1]]
                total = torch.addmm(total, weights.first(level), known)
            sums.append(total + sums[level - 2] if level in plan.skips else total)
            self.level(level + 1)[:rows] = activation(sums[level])
        tallest = max(sum(p.height for p in block.pieces) for block in plan.blocks)
        buffer = self.x.new_empty(tallest, z.shape[1])
        for number, block in enumerate(plan.blocks):
            top = 0
            for level, piece in enumerate(block.pieces):
                (first, last), (start, end) = piece.rows, piece.before
                part = buffer[top : top + last - first]
                top += last - first
                bias = weights.biases[level][first:last, None]
                if first == last:
                    continue
                if start < end:
                    known = self.level(level)[start:end]
                    torch.addmm(bias, weights.before(block, level), known, out=part)
                else:
                    part.copy_(bias.expand_as(part))
                if level == 0 and context is not None:
                    part += context[first:last]
            inside(self, number, buffer)

    def reverse(
        self,
        gradient: Tensor,
        slope_x: Tensor,
        slope_phi: Tensor,
        slope_hidden: Tensor,
        inside: Reverse,
    ) -> None:
        r"""Solves :math:`J^T v = g` for the Jacobian J of the map from data to latent.

        Args:
            gradient: The right-hand side g, with shape (features, batch); v takes its place.
            slope_x: :math:`\partial z_i / \partial x_i`, with shape (features, batch).
            slope_phi: :math:`\partial z_i / \partial \phi_i`, with shape (outputs, batch).
            slope_hidden: The derivatives of the activations, with shape (units, batch).
            inside: The steps inside of a block.
        """
        plan, weights = self.plan, self.weights
        self.z, self.slope_x, self.slope_hidden = gradient, slope_x, slope_hidden
        self.slope_phi = slope_phi
        self.hidden.zero_()
        for number in reversed(range(len(plan.blocks))):
            block = plan.blocks[number]
            inside(self, number)
            for level, piece in enumerate(block.pieces):
                (first, last), (start, end) = piece.rows, piece.before
                if first < last and start < end:
                    above = slope_phi if level == len(plan.edges) else self.level(level + 1)
                    self.level(level)[start:end].addmm_(
                        weights.before(block, level).t(), above[first:last]
                    )
