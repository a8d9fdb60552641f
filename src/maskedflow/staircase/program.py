"""Programs: what is done to which rows, in which order. Pure data.

All numbers of a network are rows: features, sums (what goes into an activation), hidden units, and
last the outputs. An evaluation is a list of operations on ranges of rows, and so is an inverse, or
a gradient. A program is printable and can be checked by itself; the compiled kernel runs it, or a
few lines of torch do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from maskedflow.kernels import GROUP, Code

from .packing import Staircase

#: Rows of a transposed product that do: they share the lines of the matrix in the cache.
STRIP = 48
#: How many pieces the rows of a layer's gradient are cut into.
PIECES = 8
#: The fewest products in one.
SMALLEST_PIECE = 16


#: What takes as long as a row of another operation does for a sample, in multiplications.
WORK_OF_A_ROW = {Code.ACTIVATE: 32, Code.ADD: 8, Code.INVERT: 2048, Code.SLOPE: 32, Code.SOLVE: 64}


class Operation(NamedTuple):
    """A step of a program.

    - PRODUCT adds to `rows` rows from `out` on what the weights of `layer` make of `columns` rows
      from `source` on. Weight (u, k) is number `offset + u * row_step + k * column_step` of the
      packed parameter.
    - ACTIVATE writes the activations of the rows from `source` on.
    - ADD adds them.
    - INVERT takes the rows from `out` on for the latent of as many features, whose parameters start
      at `source`, and writes the data there.
    - SLOPE writes the rows from `source` on, times the activation's derivative. `columns` and
      `layer` are the first rows of the sums and of the activations, as an evaluation left them.
    - SOLVE takes the rows from `out` on for a right-hand side and divides by the derivatives from
      `columns` on, after subtracting the rows from `source` on; then multiplies the derivatives by
      parameters, from `layer` on, with the solution.
    """

    code: Code
    out: int
    rows: int
    source: int
    columns: int = 0
    layer: int = 0
    offset: int = 0
    row_step: int = 0
    column_step: int = 0

    def __str__(self) -> str:
        def span(start: int, count: int) -> str:
            return f"{start}-{start + count}"

        out, source = span(self.out, self.rows), span(self.source, self.rows)
        match self.code:
            case Code.PRODUCT:
                return f"{out} += layer {self.layer} of {span(self.source, self.columns)}"
            case Code.ACTIVATE:
                return f"{out} = a({source})"
            case Code.ADD:
                return f"{out} += {source}"
            case Code.INVERT:
                return f"{out} inverted, given {self.source}-"
            case Code.SLOPE:
                return f"{out} = {source} * a'({span(self.columns, self.rows)})"
            case _:
                return f"{out} -= {source}, /= {span(self.columns, self.rows)}, {self.layer}- *= it"


@dataclass(frozen=True)
class Program:
    """A list of operations, and the same as a table of integers, for the kernel.

    The holes are the packed weights that products read and masks forbid, which have to be zero:
    layer, first number, and how many, with shape (runs, 3).
    """

    operations: tuple[Operation, ...]
    holes: np.ndarray[Any, np.dtype[np.int64]] = field(compare=False)
    table: np.ndarray[Any, np.dtype[np.int64]] = field(compare=False)

    def __str__(self) -> str:
        return "\n".join(map(str, self.operations))

    @cached_property
    def work(self) -> int:
        """About how many multiplications there are for a sample."""
        return sum(
            one.rows * (one.columns if one.code is Code.PRODUCT else WORK_OF_A_ROW[one.code])
            for one in self.operations
        )


class Layout:
    """Where the numbers of a chain of masked layers are, and the programs that evaluate it.

    The chain is as of a `Trunk`. Activations may take the place of their sums, where no layer reads
    these. Each layer's sums begin at a row of `sums`, of the last one the outputs, and what it
    reads at one of `levels`; there are `height` rows.
    """

    def __init__(self, stairs: Sequence[Staircase], skips: frozenset[int], in_place: bool) -> None:
        self.stairs, self.skips = stairs, skips
        self.features = stairs[0].columns
        self.widths = [stair.rows for stair in stairs]
        in_place = in_place and not skips
        *hidden, outputs = self.widths
        copies = 1 if in_place else 2
        self.sums = list(accumulate((copies * width for width in hidden), initial=self.features))
        self.levels = [0]
        for start, width in zip(self.sums, hidden, strict=False):
            self.levels.append(start if in_place else start + width)
        self.height = self.sums[-1] + outputs

    @cached_property
    def forward(self) -> Program:
        """From features to outputs."""
        writer = Writer(self)
        for layer, stair in enumerate(self.stairs):
            writer.product(layer, 0, stair.rows, 0, stair.columns)
            writer.activate(layer, 0, stair.rows)
        return writer.done()

    @cached_property
    def backward(self) -> Program:
        """From the gradient of the outputs to those of all sums and of the features."""
        writer = Writer(self)
        for layer in reversed(range(len(self.stairs))):
            stair = self.stairs[layer]
            writer.transposed(layer, 0, stair.rows, 0, stair.columns)
            if layer > 0:
                writer.slope(layer - 1, 0, stair.columns)
        return writer.done()

    def items(self, width: int, strips: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The pieces of the parameters' gradients, for so many strips of columns in a cache."""
        products = np.array(
            [one.layer if one.code is Code.PRODUCT else -1 for one in self.forward.operations]
        )
        found = []
        for layer, stair in enumerate(self.stairs):
            own = np.flatnonzero(products == layer)
            columns = [*range(0, stair.columns, strips * width), stair.columns]
            pieces = max(1, min(PIECES, len(own) // SMALLEST_PIECE))
            for part in np.array_split(own, pieces) if len(own) else ():
                found += [(layer, part[0], part[-1] + 1, *span) for span in pairwise(columns)]
            row = self.sums[layer]
            found.append((len(self.stairs) + layer, row, stair.rows, -1, -1))
        return np.array(found, np.int64)

    @cached_property
    def gaps(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The packed weights that masks forbid."""
        return np.concatenate(
            [runs(~stair.packed_mask(), layer) for layer, stair in enumerate(self.stairs)]
        )

    def fills(
        self, biases: Sequence[Tensor]
    ) -> list[tuple[int, int, Tensor | None, Tensor | None]]:
        """What the sums start with; the first bias may be one a sample."""
        return [
            (row, width, None, bias) if bias.ndim > 1 else (row, width, bias, None)
            for row, width, bias in zip(self.sums, self.widths, biases, strict=True)
        ]


class Writer:
    """Writes a program for a chain, whose products are of `group` rows that share columns."""

    def __init__(self, layout: Layout, group: int = GROUP) -> None:
        self.layout, self.stairs = layout, layout.stairs
        self._group, self._strip = group, STRIP // GROUP * group
        self._operations: list[Operation] = []
        self._holes: list[tuple[int, np.ndarray[Any, np.dtype[np.int64]]]] = []

    def done(self) -> Program:
        """The program."""
        table = np.array(self._operations, np.int64).reshape(-1, len(Operation._fields))
        return Program(tuple(self._operations), self._runs(), table)

    def _runs(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        found = []
        for layer, stair in enumerate(self.stairs):
            holes = np.zeros(stair.size, np.bool_)
            for number, places in self._holes:
                if number == layer:
                    holes[places] = True
            found.append(runs(holes, layer))
        return np.concatenate(found)

    def write(self, code: Code, out: int, rows: int, source: int, **more: int) -> None:
        """Adds an operation, unless it has no rows."""
        if rows > 0:
            self._operations.append(Operation(code, out, rows, source, **more))

    def product(self, layer: int, top: int, bottom: int, left: int, right: int) -> None:
        """Adds to the sums of a layer's rows what they read of some of its columns."""
        stair = self.stairs[layer]
        for slab in stair.slabs:
            first, last = max(top, slab.top), min(bottom, slab.bottom)
            for row in range(first, last, self._group):
                end = min(row + self._group, last)
                start = max(left, slab.left, int(stair.row_starts[row:end].min()))
                stop = min(right, slab.right, int(stair.row_ends[row:end].max()))
                if start < stop:
                    self._note_holes(layer, slab, (row, end), (start, stop))
                    self.write(
                        Code.PRODUCT,
                        self.layout.sums[layer] + row,
                        end - row,
                        self.layout.levels[layer] + start,
                        columns=stop - start,
                        layer=layer,
                        offset=slab.place(row, start),
                        row_step=slab.shape[1],
                        column_step=1,
                    )

    def transposed(self, layer: int, top: int, bottom: int, left: int, right: int) -> None:
        """Adds to what a layer reads, some of its columns, what its rows pass down to them."""
        stair = self.stairs[layer]
        for slab in stair.slabs:
            first, last = max(left, slab.left), min(right, slab.right)
            for column in range(first, last, self._strip):
                end = min(column + self._strip, last)
                start = max(top, slab.top, int(stair.column_starts[column:end].min()))
                stop = min(bottom, slab.bottom, int(stair.column_ends[column:end].max()))
                if start < stop:
                    self._note_holes(layer, slab, (start, stop), (column, end))
                    self.write(
                        Code.PRODUCT,
                        self.layout.levels[layer] + column,
                        end - column,
                        self.layout.sums[layer] + start,
                        columns=stop - start,
                        layer=layer,
                        offset=slab.place(start, column),
                        row_step=1,
                        column_step=slab.shape[1],
                    )

    def activate(self, layer: int, top: int, bottom: int) -> None:
        """Completes the sums of a hidden layer's rows and activates them."""
        layout = self.layout
        if layer in layout.skips:
            self.write(
                Code.ADD, layout.sums[layer] + top, bottom - top, layout.sums[layer - 2] + top
            )
        if layer + 1 < len(layout.widths):
            out = layout.levels[layer + 1] + top
            self.write(Code.ACTIVATE, out, bottom - top, layout.sums[layer] + top)

    def slope(self, layer: int, top: int, bottom: int) -> None:
        """The opposite of `activate`, for gradients: from a hidden layer's units to its sums."""
        layout = self.layout
        total, unit = layout.sums[layer] + top, layout.levels[layer + 1] + top
        self.write(Code.SLOPE, total, bottom - top, unit, columns=total, layer=unit)
        if layer + 2 in layout.skips:
            self.write(Code.ADD, total, bottom - top, layout.sums[layer + 2] + top)

    def _note_holes(
        self, layer: int, slab: Any, rows: tuple[int, int], columns: tuple[int, int]
    ) -> None:
        allowed = self.stairs[layer].mask[rows[0] : rows[1], columns[0] : columns[1]]
        if allowed.all():
            return
        row, column = np.nonzero(~allowed)
        self._holes.append((layer, slab.place(row + rows[0], column + columns[0])))


def runs(
    chosen: np.ndarray[Any, np.dtype[np.bool_]], layer: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The runs of chosen numbers: layer, first number, and how many.

    Example:
        >>> runs(np.array([True, True, False, True]), 7).tolist()
        [[7, 0, 2], [7, 3, 1]]
    """
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    return np.stack([np.full_like(starts, layer), starts, ends - starts], axis=1)
