"""The plan of a sweep: which units, in which blocks, in which order. Pure data.

To invert z -> x, generation after generation, three steps are enough: finish the parameters of a
generation's features, which need hidden units of lower degree only; invert their maps; compute the
hidden units of that degree, layer by layer. Units are sorted by degree, so every step reads and
writes neighbouring rows, and each weight is used once. As in a blocked triangular solve,
generations go in blocks: one matrix product a layer brings in all earlier blocks, and only the
small diagonal pieces are left for the steps inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch

from maskedflow.nn import MaskedLinear, MaskedMLP
from maskedflow.staircase import Slab, block_size

__all__ = ["Block", "Integers", "Piece", "Plan"]

Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Piece:
    """The rows of one layer that a block computes, and the columns that they read.

    Attributes:
        slab: Which slab of the layer's weight holds the rows.
        rows: The first row and the end.
        before: The columns of earlier blocks, a range of the layer below.
        inside: The columns of this block, a range of the layer below.
    """

    slab: int
    rows: tuple[int, int]
    before: tuple[int, int]
    inside: tuple[int, int]

    @property
    def height(self) -> int:
        """The number of rows."""
        return self.rows[1] - self.rows[0]

    @property
    def width(self) -> int:
        """The number of columns of this block."""
        return self.inside[1] - self.inside[0]


@dataclass(frozen=True)
class Block:
    """Some generations, and what each layer computes in them.

    Attributes:
        first: The first generation.
        last: The last generation.
        pieces: One piece a layer, the output layer last.
        counts: How many of the block's features (first row) and units of each hidden layer have a
            degree up to g, for g = first - 1, ..., last, with shape (layers, generations + 1).
        table: What the compiled kernel needs to know: the number of hidden layers and of parameters
            a feature, the block's features (first and end), whether they descend; then of each
            layer, where its weights start, how wide they are, where its rows start, where the rows
            start that it reads, and whether it adds the layer two below.
    """

    first: int
    last: int
    pieces: tuple[Piece, ...]
    counts: Integers = field(compare=False)
    table: Integers = field(compare=False)


@dataclass(frozen=True)
class Plan:
    """How to sweep through a masked MLP.

    Attributes:
        generations: The number of generations G.
        features: The number of features D.
        parameters: The number of outputs a feature.
        descending: Whether generations descend along the features.
        edges: One list a hidden layer, of G + 1 numbers: units of degree d are
            edges[d] to edges[d + 1].
        feature_edges: G + 1 numbers: when features are taken in sweep order, generation g is those
            from feature_edges[g - 1] to feature_edges[g].
        skips: The hidden layers that add the one two below them.
        blocks: The blocks, in order.

    Example:
        >>> lower = torch.ones(2, 2).tril(-1).bool().repeat_interleave(2, dim=0)
        >>> plan = Plan.of(MaskedMLP(lower, [4], generation=torch.tensor([1, 2])))
        >>> print(plan)
        Plan of 2 generations, 2 features, 4 units
          generations 1-2: units 0-4 read 0-0 and 0-2 | outputs 0-4 read 0-0 and 0-4
    """

    generations: int
    features: int
    parameters: int
    descending: bool
    edges: tuple[tuple[int, ...], ...]
    feature_edges: tuple[int, ...]
    skips: frozenset[int]
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, conditioner: MaskedMLP) -> Plan:
        """Makes the plan of a conditioner that knows its features' generations."""
        layers = cast(list[MaskedLinear], list(conditioner.layers))
        features = conditioner.in_features
        parameters = conditioner.out_features // features
        generation = layers[-1].degree.cpu()[::parameters]
        total = int(generation.max())
        descending = bool(generation[0] > generation[-1])
        degree = torch.arange(total + 1)
        edges = tuple(
            tuple(torch.searchsorted(layer.degree.cpu(), degree).tolist()) for layer in layers[:-1]
        )
        feature_edges = tuple(
            torch.searchsorted(generation.sort().values, degree, right=True).tolist()
        )
        plan = cls(
            total, features, parameters, descending, edges, feature_edges, conditioner.skips, ()
        )
        size = block_size(features, total)
        ranges = [(first, min(first + size - 1, total)) for first in range(1, total + 1, size)]
        slabs = [layer.stairs.slabs for layer in layers]
        return replace(plan, blocks=tuple(plan._block(*both, slabs) for both in ranges))

    def _block(self, first: int, last: int, slabs: list[list[Slab]]) -> Block:
        low, high = self.feature_edges[first - 1], self.feature_edges[last]
        own = (self.features - high, self.features - low) if self.descending else (low, high)
        after = [(edge[first], edge[min(last + 1, self.generations)]) for edge in self.edges]
        ranges = [own, *after]
        rows = [*after, (own[0] * self.parameters, own[1] * self.parameters)]
        pieces = []
        for level, (below, mine) in enumerate(zip(ranges, rows, strict=True)):
            slab = next((n for n, s in enumerate(slabs[level]) if s.top <= mine[0] < s.bottom), -1)
            left, right = slabs[level][slab][2:4] if mine[0] < mine[1] else (0, 0)
            if level == 0 and self.descending:
                before = (max(left, below[1]), right)
            else:
                before = (left, min(right, below[0]))
            pieces.append(Piece(slab, mine, (before[0], max(before)), below))
        return Block(
            first, last, tuple(pieces), self._counts(first, last), self._table(first, pieces)
        )

    def _table(self, first: int, pieces: list[Piece]) -> Integers:
        heights, widths = [p.height for p in pieces], [p.width for p in pieces]
        sizes = [height * width for height, width in zip(heights, widths, strict=True)]
        starts = accumulate([edge[-1] for edge in self.edges[:-1]], initial=0)
        columns = [
            [0, *accumulate(sizes[:-1])],
            widths,
            [0, *accumulate(heights[:-1])],
            [0, *(start + edge[first] for start, edge in zip(starts, self.edges, strict=False))],
            [int(level in self.skips) for level in range(len(pieces))],
        ]
        head = [len(self.edges), self.parameters, *pieces[0].inside, int(self.descending)]
        return np.array([*head, *np.ravel(columns)], np.int64)

    def _counts(self, first: int, last: int) -> Integers:
        features = [self.feature_edges[g] for g in range(first - 1, last + 1)]
        units = [
            [edge[min(g + 1, self.generations)] for g in range(first - 1, last + 1)]
            for edge in self.edges
        ]
        known = np.array([features, *units], np.int64)
        return known - known[:, :1]

    def __str__(self) -> str:
        units = sum(edge[-1] for edge in self.edges)
        lines = [f"Plan of {self.generations} generations, {self.features} features, {units} units"]
        for block in self.blocks:
            parts = [
                f"{name} {piece.rows[0]}-{piece.rows[1]} read {piece.before[0]}-{piece.before[1]} "
                f"and {piece.inside[0]}-{piece.inside[1]}"
                for name, piece in zip(
                    ["units"] * len(self.edges) + ["outputs"], block.pieces, strict=True
                )
            ]
            lines.append(f"  generations {block.first}-{block.last}: " + " | ".join(parts))
        return "\n".join(lines)
