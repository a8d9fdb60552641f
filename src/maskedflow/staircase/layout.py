"""Layouts of masked layers, and what is written of them into programs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from maskedflow.kernels import GROUP, ONES, ZEROS, Activation, Code, Kernel, Panel

from .packing import Staircase
from .program import Operation, Program, merged, runs

#: Rows of a transposed product that do: they share the lines of the matrix in the cache.
STRIP = 12
#: Rows, most of them, and most columns of a gradient: their slopes and values stay in caches.
GRADIENT_ROWS, MOST_GRADIENT_ROWS, GRADIENT_COLUMNS = 4, 16, 96
#: What a map's functions are called.
_FUNCTIONS = {
    Code.EVALUATE: "evaluate",
    Code.DIFFERENTIATE: "differentiate",
    Code.SOLVE: "differentiate",
    Code.INVERT: "invert",
}


class Layout:
    """Where the numbers of a chain of masked layers are, and the programs that evaluate it.

    The chain is as of a `Trunk`. What it reads are rows from `inputs` on; the rows from `first` on
    are its own. Activations may take the place of their sums, where no layer reads these. Each
    layer's sums begin at a row of `sums`, of the last one the outputs, and what it reads at one of
    `levels`; the row after the last is the `end`. The vectors of a job have its weights from
    `vector` on, and then its biases.
    """

    def __init__(
        self,
        stairs: Sequence[Staircase],
        skips: frozenset[int],
        activation: tuple[Activation, float],
        *,
        in_place: bool,
        inputs: int = 0,
        first: int | None = None,
        vector: int = 0,
    ) -> None:
        self.stairs, self.skips, self.activation = stairs, skips, activation
        self.inputs, self.vector = inputs, vector
        self.first = inputs + stairs[0].columns if first is None else first
        self.widths = [stair.rows for stair in stairs]
        in_place = in_place and not skips
        *hidden, outputs = self.widths or [0]
        copies = 1 if in_place else 2
        self.sums = list(accumulate((copies * width for width in hidden), initial=self.first))
        self.levels = [inputs]
        for start, width in zip(self.sums, hidden, strict=False):
            self.levels.append(start if in_place else start + width)
        self.end = self.sums[-1] + outputs

    @cached_property
    def forward(self) -> Program:
        """From inputs to outputs."""
        return self._evaluation(start=0)

    @cached_property
    def onward(self) -> Program:
        """The same, where the first sums have begun already: with a bias that is one a row."""
        return self._evaluation(start=1)

    def _evaluation(self, start: int) -> Program:
        writer = Writer(self)
        writer.biases(start)
        writer.forward()
        return merged(writer.done())

    @cached_property
    def backward(self) -> Program:
        """From the slopes by the outputs to those by all sums, and by the inputs, from zero on."""
        writer = Writer(self)
        writer.fill(Panel.SLOPES, self.inputs, self.stairs[0].columns)
        writer.backward()
        writer.fill(Panel.VALUES, self.end, 1, ONES)
        return merged(writer.done())

    @cached_property
    def gradients(self) -> Program:
        """The gradients of weights and biases, where a row of ones is after the last."""
        writer = Writer(self)
        writer.gradients(ones=self.end)
        return writer.done()


#: A layout for programs of other operations.
NO_LAYERS = Layout((), frozenset(), (Activation.RELU, 0.0), in_place=True, first=0)


class Writer:
    """Writes a program, for a chain of layers if need be.

    Its products are of `group` rows that share columns.
    """

    def __init__(self, layout: Layout = NO_LAYERS, group: int = GROUP) -> None:
        self.layout, self.stairs = layout, layout.stairs
        self._group, self._strip = group, STRIP // GROUP * group
        self.operations: list[Operation] = []
        self._constants: list[float] = [layout.activation[1]]
        self._holes = [np.zeros(stair.size, np.bool_) for stair in layout.stairs]

    def done(self) -> Program:
        """The program."""
        holes = [runs(found, self.layout.vector + n) for n, found in enumerate(self._holes)]
        constants = tuple(self._constants)
        none = np.empty((0, 3), np.int64)
        return Program(tuple(self.operations), constants, np.concatenate([none, *holes]))

    def write(
        self, code: Code, panel: Panel, out: int, rows: int, source: int, **more: Any
    ) -> None:
        """Adds an operation, unless it has no rows."""
        if rows > 0:
            self.operations.append(Operation(code, panel, out, rows, source, **more))

    def fill(
        self,
        panel: Panel,
        row: int,
        rows: int,
        vector: int = ZEROS,
        step: int = 1,
        *,
        first: int = 0,
        apart: int = 1,
    ) -> None:
        """Has rows, each `step` after the last, begin with the numbers of a vector.

        They are those from the `first` on, each `apart` from the last.
        """
        where = {"layer": vector, "row_step": step, "begin": first, "column_step": apart}
        self.write(Code.FILL, panel, row, rows, 0, **where)

    def biases(self, start: int = 0) -> None:
        """Has the sums of the layers from `start` on begin with their biases."""
        layout, layers = self.layout, len(self.stairs)
        for layer in range(start, layers):
            vector = layout.vector + layers + layer
            self.fill(Panel.VALUES, layout.sums[layer], layout.widths[layer], vector)

    def mask(self, panel: Panel, out: int, present: Sequence[int | None], each: int = 1) -> None:
        """Sets features, of which each has some rows from `out` on, to 0 where they are absent.

        `present` are the rows of values that say so; None of those that never are.
        """
        for feature, row in enumerate(present):
            if row is not None:
                self.write(Code.MASK, panel, out + feature * each, each, row)

    def map(self, code: Code, panel: Panel, kernel: Kernel, **more: int) -> None:
        """Adds an operation of a univariate map."""
        kind, constants = kernel
        real = len(self._constants)
        self._constants += constants
        function = f"{kind.name.lower()}.{_FUNCTIONS[code]}"
        self.write(code, panel, real=real, function=function, **more)

    def forward(self) -> None:
        """All layers, from inputs to outputs."""
        for layer, stair in enumerate(self.stairs):
            self.product(layer, 0, stair.rows, 0, stair.columns)
            self.activate(layer, 0, stair.rows)

    def backward(self, inputs: bool = True) -> None:
        """From the slopes by the outputs to those by all sums, and added to those by `inputs`."""
        layout = self.layout
        self.fill(Panel.SLOPES, layout.first, layout.sums[-1] - layout.first)
        for layer in reversed(range(len(self.stairs))):
            stair = self.stairs[layer]
            if layer > 0 or inputs:
                self.transposed(layer, 0, stair.rows, 0, stair.columns)
            if layer > 0:
                self.slope(layer - 1, 0, stair.columns)

    def gradients(self, ones: int) -> None:
        """The gradients of all weights and biases, given a row of ones."""
        for layer, stair in enumerate(self.stairs):
            self.gradient(layer)
            self.write(
                Code.GRADIENT,
                Panel.SLOPES,
                self.layout.sums[layer],
                stair.rows,
                ones,
                columns=1,
                layer=self.layout.vector + len(self.stairs) + layer,
                row_step=1,
            )

    def product(self, layer: int, top: int, bottom: int, left: int, right: int) -> None:
        """Adds to the sums of a layer's rows what they read of some of its columns."""
        stair = self.stairs[layer]
        for slab in stair.slabs:
            first, last = max(top, slab.top), min(bottom, slab.bottom)
            for row in range(first, last, self._group):
                end = min(row + self._group, last)
                start = max(left, slab.left, min(stair.row_starts[row:end]))
                stop = min(right, slab.right, max(stair.row_ends[row:end]))
                if start < stop:
                    self._note_holes(layer, slab, (row, end), (start, stop))
                    self.write(
                        Code.PRODUCT,
                        Panel.VALUES,
                        self.layout.sums[layer] + row,
                        end - row,
                        self.layout.levels[layer] + start,
                        columns=stop - start,
                        layer=self.layout.vector + layer,
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
                start = max(top, slab.top, min(stair.column_starts[column:end]))
                stop = min(bottom, slab.bottom, max(stair.column_ends[column:end]))
                if start < stop:
                    self._note_holes(layer, slab, (start, stop), (column, end))
                    self.write(
                        Code.PRODUCT,
                        Panel.SLOPES,
                        self.layout.levels[layer] + column,
                        end - column,
                        self.layout.sums[layer] + start,
                        columns=stop - start,
                        layer=self.layout.vector + layer,
                        offset=slab.place(start, column),
                        row_step=1,
                        column_step=slab.shape[1],
                    )

    def gradient(self, layer: int) -> None:
        """The gradient of a layer's weights, piece by piece."""
        layout, stair = self.layout, self.stairs[layer]
        self._holes[layer] = ~stair.packed_mask()
        for left in range(0, stair.columns, GRADIENT_COLUMNS):
            right = min(left + GRADIENT_COLUMNS, stair.columns)
            for slab in stair.slabs:
                for row in range(slab.top, slab.bottom, GRADIENT_ROWS):
                    end = min(row + GRADIENT_ROWS, slab.bottom)
                    start = max(left, slab.left, min(stair.row_starts[row:end]))
                    stop = min(right, slab.right, max(stair.row_ends[row:end]))
                    if start >= stop:
                        continue
                    one = Operation(
                        Code.GRADIENT,
                        Panel.SLOPES,
                        layout.sums[layer] + row,
                        end - row,
                        layout.levels[layer] + start,
                        columns=stop - start,
                        layer=layout.vector + layer,
                        offset=slab.place(row, start),
                        row_step=slab.shape[1],
                        column_step=1,
                    )
                    last = self.operations[-1] if self.operations else one
                    more = last.rows + one.rows
                    follows = (
                        last.layer == one.layer
                        and last.columns == one.columns
                        and last.row_step == one.row_step
                        and last.source == one.source
                        and last.out + last.rows == one.out
                        and last.offset + last.rows * last.row_step == one.offset
                    )
                    if follows and more <= MOST_GRADIENT_ROWS:
                        self.operations[-1] = last._replace(rows=more)
                    else:
                        self.operations.append(one)

    def activate(self, layer: int, top: int, bottom: int) -> None:
        """Completes the sums of a hidden layer's rows and activates them."""
        layout, rows = self.layout, bottom - top
        total = layout.sums[layer] + top
        if layer in layout.skips:
            self.write(Code.ADD, Panel.VALUES, total, rows, layout.sums[layer - 2] + top)
        if layer + 1 < len(layout.widths):
            unit = layout.levels[layer + 1] + top
            function = f"{layout.activation[0].name.lower()}.activate"
            self.write(Code.ACTIVATE, Panel.VALUES, unit, rows, total, function=function)

    def slope(self, layer: int, top: int, bottom: int) -> None:
        """The opposite of `activate`, for slopes: from a hidden layer's units to its sums."""
        layout, rows = self.layout, bottom - top
        total, unit = layout.sums[layer] + top, layout.levels[layer + 1] + top
        function = f"{layout.activation[0].name.lower()}.slope"
        places = {"columns": total, "layer": unit}
        self.write(Code.SLOPE, Panel.SLOPES, total, rows, unit, **places, function=function)
        if layer + 2 in layout.skips:
            self.write(Code.ADD, Panel.SLOPES, total, rows, layout.sums[layer + 2] + top)

    def _note_holes(
        self, layer: int, slab: Any, rows: tuple[int, int], columns: tuple[int, int]
    ) -> None:
        stair = self.stairs[layer]
        starts, ends = stair.row_starts[rows[0] : rows[1]], stair.row_ends[rows[0] : rows[1]]
        if stair.is_filled and max(starts) <= columns[0] and min(ends) >= columns[1]:
            return
        allowed = stair.mask[rows[0] : rows[1], columns[0] : columns[1]]
        row, column = np.nonzero(~allowed)
        self._holes[layer][slab.place(row + rows[0], column + columns[0])] = True
