"""Programs: what is done to which rows, in which order. Pure data.

All numbers of a flow are rows: features, sums (what goes into an activation), hidden units, outputs
of a network, latents. An evaluation is a list of operations on ranges of rows, and so is an
inverse, or a gradient, whose rows are the slopes of the rows of the same number. A program is
printable and can be checked by itself; the compiled kernel runs it, or a few lines of torch do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np

from maskedflow.kernels import (
    AS_IT_IS,
    AT_VALUES,
    NO_GATE,
    ONES,
    RELU_GATE,
    ZEROS,
    Code,
    Panel,
)
from maskedflow.kernels.threads import Team

Integers = np.ndarray[Any, np.dtype[np.int64]]

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


def runs(chosen: np.ndarray[Any, np.dtype[np.bool_]], vector: int) -> Integers:
    """The runs of chosen numbers, as rows of holes.

    Example:
        >>> runs(np.array([True, True, False, True]), 7).tolist()
        [[7, 0, 2], [7, 3, 1]]
    """
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    return np.stack([np.full_like(starts, vector), starts, ends - starts], axis=1)
