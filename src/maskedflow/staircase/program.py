"""Programs: what is done to which rows, in which order. Pure data.

All numbers of a flow are rows: features, sums (what goes into an activation), hidden units, outputs
of a network, latents. An evaluation is a list of operations on ranges of rows, and so is an
inverse, or a gradient, whose rows are the slopes of the rows of the same number. A program is
printable and can be checked by itself; the compiled kernel runs it, or a few lines of torch do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, cast

import numpy as np

from maskedflow.kernels import (
    AS_IT_IS,
    AT_VALUES,
    GROUP,
    NO_GATE,
    ONES,
    RELU_GATE,
    ZEROS,
    Activation,
    Code,
    Kernel,
    Panel,
)
from maskedflow.kernels.threads import Team

from .packing import Staircase

Integers = np.ndarray[Any, np.dtype[np.int64]]

#: Rows of a transposed product that do: they share the lines of the matrix in the cache.
STRIP = 12
#: Rows, most of them, and most columns of a gradient: their slopes and values stay in caches.
GRADIENT_ROWS, MOST_GRADIENT_ROWS, GRADIENT_COLUMNS = 4, 16, 96

#: The integers of an operation.
WORDS = 14

#: What takes as long as a row of another operation does for a sample, in multiplications.
WORK_OF_A_ROW = {
    Code.FILL: 8,
    Code.COPY: 8,
    Code.ADD: 8,
    Code.ACTIVATE: 32,
    Code.SLOPE: 32,
    Code.EVALUATE: 512,
    Code.DIFFERENTIATE: 1024,
    Code.INVERT: 2048,
    Code.SOLVE: 2048,
    Code.NORMAL: 16,
    Code.NORMAL_SLOPE: 16,
    Code.NEGATE: 8,
    Code.MASK: 8,
}


class Operation(NamedTuple):
    """A step of a program, on values or on slopes.

    - FILL has so many rows, each `row_step` after the last, begin with the numbers of vector
      `layer`, each `column_step` after the last, from number `begin` on; or with zeros or ones.
    - PRODUCT adds to `rows` rows from `out` on what the weights of vector `layer` make of `columns`
      rows from `source` on. Weight (u, k) is number `offset + u * row_step + k * column_step`. Rows
      may have a `start`: the numbers of that vector from `begin` on, or zeros; and sums go through
      a `gate`, if any: a ReLU, or that of the values from row `gate - AT_VALUES` on.
    - COPY writes the rows from `source` on.
    - ADD adds them.
    - NEGATE writes them with the other sign.
    - MASK sets the rows from `out` on to 0, of the samples whose value in row `source` is 0.
    - ACTIVATE writes their activations, by a compiled `function` with constant `real`.
    - SLOPE writes them, times that function's derivative. `columns` and `layer` are the first rows
      of the sums and of the activations among the values.
    - EVALUATE writes the latents of the features from `source` on, by a `function`. Each has
      `columns` parameters, from row `layer` on, and row `offset` gets the ladj.
    - DIFFERENTIATE writes the slopes by those features, and by their parameters, given those by the
      latents, from `source` on, and by the ladj; the rows are as of EVALUATE, but for `out` and
      `source`.
    - INVERT is EVALUATE in the other direction.
    - SOLVE is DIFFERENTIATE for INVERT: given all slopes by the features, from `source` on, except
      through the latents and through the features' own parameters, it writes those.
    - NORMAL adds to row `out` the log-density of N(0, I) of the rows from `source` on.
    - NORMAL_SLOPE writes the slopes by these rows, given those by row `out`.
    - GRADIENT is a PRODUCT's slope by its weights: slopes of `rows` rows from `out` on, times
      values of `columns` rows from `source` on, summed over all samples.
    """

    code: Code
    panel: Panel
    out: int
    rows: int
    source: int
    columns: int = 0
    layer: int = 0
    offset: int = 0
    row_step: int = 0
    column_step: int = 0
    real: int = 0
    start: int = AS_IT_IS
    begin: int = 0
    gate: int = NO_GATE
    function: str = ""

    @property
    def touched(self) -> Iterator[tuple[Panel, int, int]]:
        """What it reads and writes: of what panel, the first row, and how many."""
        yield (
            self.panel,
            self.out,
            1 + (self.rows - 1) * max(self.row_step, 1) if (self.code is Code.FILL) else self.rows,
        )
        if self.code is Code.MASK:
            yield Panel.VALUES, self.source, 1
        elif self.code is not Code.FILL:
            yield self.panel, self.source, max(self.rows, self.columns)
        if self.code is Code.SLOPE:
            yield Panel.VALUES, self.columns, self.rows
            yield Panel.VALUES, self.layer, self.rows
        elif self.function and self.code is not Code.ACTIVATE:
            for panel in Panel:
                yield panel, self.layer, self.rows * self.columns
                yield panel, self.out, self.rows
                yield panel, self.source, self.rows
                yield panel, self.offset, 1

    def __str__(self) -> str:
        def span(start: int, count: int) -> str:
            return f"{start}-{start + count}"

        out, source = span(self.out, self.rows), span(self.source, self.rows)
        parameters = span(self.layer, self.rows * self.columns)
        match self.code:
            case Code.FILL:
                what = {ZEROS: "0", ONES: "1"}.get(self.layer, f"vector {self.layer}")
                text = f"{out} = {what}" + (f", every {self.row_step}th" * (self.row_step > 1))
            case Code.PRODUCT:
                text = f"{out} += vector {self.layer} of {span(self.source, self.columns)}"
                if self.start != AS_IT_IS:
                    what = "0" if self.start == ZEROS else f"vector {self.start}"
                    text = text.replace("+=", f"= {what} +")
                if self.gate == RELU_GATE:
                    text += ", a(it)"
                elif self.gate >= AT_VALUES:
                    text += f", * a'({span(self.gate - AT_VALUES, self.rows)})"
            case Code.COPY:
                text = f"{out} = {source}"
            case Code.ADD:
                text = f"{out} += {source}"
            case Code.NEGATE:
                text = f"{out} = -{source}"
            case Code.MASK:
                text = f"{out} = 0 where {self.source} is"
            case Code.ACTIVATE:
                text = f"{out} = a({source})"
            case Code.SLOPE:
                text = f"{out} = {source} * a'({span(self.columns, self.rows)})"
            case Code.EVALUATE:
                text = f"{out} = f({source}), given {parameters}"
            case Code.DIFFERENTIATE | Code.SOLVE:
                text = f"{out} and {parameters} by {source}"
            case Code.INVERT:
                text = f"{out} inverted, given {parameters}"
            case Code.NORMAL:
                text = f"{self.out} += normal({source})"
            case Code.NORMAL_SLOPE:
                text = f"{source} by {self.out}"
            case _:
                text = f"vector {self.layer} by {out}, of {span(self.source, self.columns)}"
        return f"d {text}" if self.panel is Panel.SLOPES else text


@dataclass(frozen=True)
class Program:
    """A list of operations.

    The `constants` are numbers that they take. Holes are the runs of weights that products read, or
    gradients write, and masks forbid, which have to be zero: vector, first number, and how many.
    """

    operations: tuple[Operation, ...] = ()
    constants: tuple[float, ...] = ()
    holes: Integers = field(default_factory=lambda: np.empty((0, 3), np.int64), compare=False)

    def __str__(self) -> str:
        return "\n".join(map(str, self.operations))

    def __add__(self, other: Program) -> Program:
        """Both, one after the other."""
        return joined([self, other])

    @cached_property
    def work(self) -> int:
        """About how many multiplications there are for a sample."""
        return sum(
            one.rows
            * (
                one.columns
                if one.code in (Code.PRODUCT, Code.GRADIENT)
                else WORK_OF_A_ROW[one.code]
            )
            for one in self.operations
        )

    @cached_property
    def tables(self) -> dict[str, Any]:
        """The same as arrays, by the names that the kernel has for them."""
        return {
            "PROGRAM": np.array([one[:-1] for one in self.operations], np.int64).reshape(-1, WORDS),
            "REALS": np.array([*self.constants, 0.0], np.float64),
            "HOLES": self.holes,
        }

    @cached_property
    def jobs(self) -> dict[int, Any]:
        """What the kernel has made of it, for numbers of so many bytes; `kernels.job` fills it."""
        return {}

    @cached_property
    def team(self) -> Team:
        """What its runs tell of how many threads they are worth."""
        return Team()

    def __getstate__(self) -> dict[str, Any]:
        names = ("operations", "constants", "holes")
        return {name: self.__dict__[name] for name in names}  # an address is no other process's


def joined(programs: Iterable[Program]) -> Program:
    """Programs one after the other, as one."""
    operations: list[Operation] = []
    constants: list[float] = []
    holes = [np.empty((0, 3), np.int64)]
    for program in programs:
        shift = len(constants)
        operations += (
            one._replace(real=one.real + shift) if shift and one.function else one
            for one in program.operations
        )
        constants += program.constants
        holes.append(program.holes)
    return Program(tuple(operations), tuple(constants), np.concatenate(holes))


def merged(program: Program) -> Program:
    """The same, where products begin with what rows would be filled with before.

    Example:
        >>> fill = Operation(Code.FILL, Panel.VALUES, 3, 2, 0, layer=1)
        >>> product = Operation(Code.PRODUCT, Panel.VALUES, 3, 2, 0, columns=3)
        >>> print(merged(Program((fill._replace(row_step=1, column_step=1), product))))
        3-5 = vector 1 + vector 0 of 0-3
    """
    operations: list[list[Operation]] = [[one] for one in program.operations]
    for place, fill in enumerate(program.operations):
        if fill.code is not Code.FILL or fill.row_step != 1 or fill.layer == ONES:
            continue
        if fill.begin > 0 or fill.column_step != 1:
            continue
        begins = np.zeros(fill.rows, np.bool_)  # rows that a product begins
        seen = np.zeros(fill.rows, np.bool_)
        for later in range(place + 1, len(operations)):
            one = operations[later][0]
            first = one.out - fill.out
            inside = first >= 0 and first + one.rows <= fill.rows
            fresh = inside and not seen[first : first + one.rows].any()
            if one.code is Code.PRODUCT and one.panel is fill.panel and fresh:
                begins[first : first + one.rows] = True
                operations[later] = [one._replace(start=fill.layer, begin=first)]
            for panel, row, rows in one.touched:
                if panel is fill.panel:
                    seen[max(row - fill.out, 0) : max(row + rows - fill.out, 0)] = True
            if seen.all():
                break
        operations[place] = [
            fill._replace(out=fill.out + start, rows=count, begin=start)
            for _, start, count in runs(~begins, 0).tolist()
        ]
    flat = [one for some in operations for one in some]
    return Program(tuple(_gated(flat)), program.constants, program.holes)


def _gated(operations: list[Operation]) -> list[Operation]:
    """The same, where a ReLU, or its slope, is the gate of the products that make what it takes."""
    found: list[Operation | None] = [*operations]
    for place, one in enumerate(operations):
        relu = one.function in ("relu.activate", "relu.slope") and one.out == one.source
        if not relu:
            continue
        left = set(range(one.out, one.out + one.rows))
        products = []
        for before in range(place - 1, -1, -1):
            other = found[before]
            if other is None:
                continue
            rows = set(range(other.out, other.out + other.rows))
            made = other.code is Code.PRODUCT and other.panel is one.panel and rows <= left
            if made:
                products.append(before)
                left -= rows
            elif any(
                panel is one.panel and not left.isdisjoint(range(row, row + count))
                for panel, row, count in other.touched
            ):
                break
            if not left:
                break
        if left:
            continue
        for number in products:
            product = cast(Operation, found[number])
            gate = RELU_GATE
            if one.panel is Panel.SLOPES:
                gate = AT_VALUES + one.layer + product.out - one.out
            found[number] = product._replace(gate=gate)
        found[place] = None
    return [one for one in found if one is not None]


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


#: What a map's functions are called.
_FUNCTIONS = {
    Code.EVALUATE: "evaluate",
    Code.DIFFERENTIATE: "differentiate",
    Code.SOLVE: "differentiate",
    Code.INVERT: "invert",
}


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


def runs(chosen: np.ndarray[Any, np.dtype[np.bool_]], vector: int) -> Integers:
    """The runs of chosen numbers, as rows of holes.

    Example:
        >>> runs(np.array([True, True, False, True]), 7).tolist()
        [[7, 0, 2], [7, 3, 1]]
    """
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    return np.stack([np.full_like(starts, vector), starts, ends - starts], axis=1)
