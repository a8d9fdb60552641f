"""What a linear map of all features, L U x + b, writes into the programs of a chain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from maskedflow.kernels import GROUP, ONES, ZEROS, Code, Map, Panel
from maskedflow.staircase import Program, Writer
from maskedflow.staircase.layout import GRADIENT_COLUMNS, MOST_GRADIENT_ROWS

from .step import Numbers, Owner, Place, Route, Rows, Step, parameters


class _Block(NamedTuple):
    """A rectangle below a matrix's diagonal, or a number on it."""

    rows: range
    columns: range

    @property
    def is_diagonal(self) -> bool:
        return self.rows == self.columns


def _triangle(first: int, end: int) -> Iterator[_Block]:
    """The blocks of a lower triangle, in the order of a substitution.

    Example:
        >>> [block.is_diagonal for block in _triangle(0, 2)]
        [True, False, True]
    """
    half = (end - first + 1) // 2
    if half > GROUP:
        half -= half % GROUP
    middle = first + half
    if middle == end:
        yield _Block(range(first, end), range(first, end))
        return
    yield from _triangle(first, middle)
    yield _Block(range(middle, end), range(first, middle))
    yield from _triangle(middle, end)


@dataclass(frozen=True, eq=False)
class Linear(Step):
    """z = L U x + b, where U's diagonal is one, and L's are exponentials, times a `sign` if any.

    The triangles of one matrix `weight` hold the rest of both, and its diagonal the exponents. In
    between is y = U x. A substitution keeps its solution with the other sign too: products add.
    """

    weight: Owner
    bias: Owner | None = None
    sign: Owner | None = None

    @property
    def owners(self) -> Sequence[Owner]:
        return [one for one in (self.weight, self.bias, self.sign) if one is not None]

    @property
    def features(self) -> int:
        held, name = self.weight
        return len(held[name])

    def latents(self, rows: Rows, place: Place) -> Route:
        x, z = place.inputs, rows.take(self.features) if rows.kept else place.inputs
        first = rows.next
        y, every = rows.take(self.features), range(self.features)
        pieces = _Pieces(self, rows, place)
        rows.give_back(first)

        there, back, further = Writer(), Writer(), Writer()
        pieces.copy(there, Panel.VALUES, y, x)
        pieces.multiply(there, Panel.VALUES, y, x, down=False)
        pieces.map(there, Code.EVALUATE, Panel.VALUES, z, y, every)
        pieces.multiply(there, Panel.VALUES, z, y, down=True)
        pieces.map(back, Code.DIFFERENTIATE, Panel.SLOPES, y, z, every)
        pieces.multiply(back, Panel.SLOPES, y, z, down=False)
        pieces.copy(further, Panel.SLOPES, x, y)
        pieces.multiply(further, Panel.SLOPES, x, y, down=True)
        return Route(
            z,
            pieces.fills + there.done(),
            lambda x_wanted, _: back.done() + further.done() if x_wanted else back.done(),
            lambda: pieces.gradients(lower=(z, y), upper=(y, x)),
        )

    def data(self, rows: Rows, place: Place) -> Route:
        z, size = place.inputs, self.features
        y, x = (rows.take(size), rows.take(size)) if rows.kept else (z, z)
        first = rows.next
        # Solutions with the other sign: first -y and -x, and then slopes by y and by z.
        minus_y, minus_x = minus_dy, minus_dz = rows.take(size), rows.take(size)
        pieces = _Pieces(self, rows, place)
        rows.give_back(first)

        there, back = Writer(), Writer()
        pieces.copy(there, Panel.VALUES, y, z)
        pieces.solve(there, Code.INVERT, Panel.VALUES, y, minus_y, down=True)
        pieces.copy(there, Panel.VALUES, x, y)
        pieces.solve(there, None, Panel.VALUES, x, minus_x, down=False)
        pieces.copy(back, Panel.SLOPES, y, x)
        pieces.solve(back, None, Panel.SLOPES, y, minus_dy, down=True)
        pieces.solve(back, Code.SOLVE, Panel.SLOPES, y, minus_dz, down=False)
        pieces.copy(back, Panel.SLOPES, z, y)
        return Route(
            x,
            pieces.fills + there.done(),
            lambda *_: back.done(),
            lambda: pieces.gradients(lower=(minus_dz, y), upper=(minus_dy, x)),
        )


class _Pieces:
    """The products of a linear step, and the map of its diagonal, at their place in a panel.

    A triangle takes rows `down` to later ones, or up to earlier ones: L takes values down, and U
    values up; their transposes take slopes the other way.
    """

    def __init__(self, step: Linear, rows: Rows, place: Place) -> None:
        self._size, self._weight, self._ladj = step.features, place.vector, place.ladj
        self._blocks = list(_triangle(0, self._size))
        self._phi = rows.take(3 * self._size)
        last = place.vector + len(step.owners) - 1
        numbers = [
            Numbers(ZEROS if step.bias is None else place.vector + 1),
            Numbers(place.vector, apart=self._size + 1),
            Numbers(ONES if step.sign is None else last),
        ]
        self.fills, self._diagonal = parameters(self._phi, self._size, numbers, place.ones)

    def copy(self, writer: Writer, panel: Panel, out: int, source: int) -> None:
        """Copies rows, unless they stay where they are."""
        writer.write(Code.COPY, panel, out, self._size if out != source else 0, source)

    def map(
        self, writer: Writer, code: Code, panel: Panel, out: int, source: int, features: range
    ) -> None:
        """The diagonal and the bias, of some features."""
        first = features.start
        writer.map(
            code,
            panel,
            (Map.LINEAR, ()),
            out=out + first,
            rows=len(features),
            source=source + first,
            columns=3,
            layer=self._phi + 3 * first,
            offset=self._ladj,
        )

    def multiply(self, writer: Writer, panel: Panel, out: int, source: int, *, down: bool) -> None:
        """Adds the product of a triangle, without its diagonal, with other rows."""
        for block in self._blocks:
            if not block.is_diagonal:
                self._product(writer, panel, out, source, block, down)

    def solve(
        self, writer: Writer, code: Code | None, panel: Panel, rows: int, minus: int, *, down: bool
    ) -> None:
        """Solves with a triangle, in place; its diagonal is one, or the map of a code."""
        for block in self._blocks if down else reversed(self._blocks):
            if block.is_diagonal:
                (row,) = block.rows
                if code is not None:
                    self.map(writer, code, panel, rows, rows, block.rows)
                writer.write(Code.NEGATE, panel, minus + row, 1, rows + row)
            else:
                self._product(writer, panel, rows, minus, block, down)

    def _product(
        self, writer: Writer, panel: Panel, out: int, source: int, block: _Block, down: bool
    ) -> None:
        to, since = (block.rows, block.columns) if down else (block.columns, block.rows)
        steps = (self._size, 1) if panel is Panel.VALUES else (1, self._size)
        writer.write(
            Code.PRODUCT,
            panel,
            out + to.start,
            len(to),
            source + since.start,
            columns=len(since),
            layer=self._weight,
            offset=to.start * steps[0] + since.start * steps[1],
            row_step=steps[0],
            column_step=steps[1],
        )

    def gradients(self, *, lower: tuple[int, int], upper: tuple[int, int]) -> Program:
        """The gradients of all vectors, where slopes and values of each triangle are given."""
        writer = Writer()
        for block in self._blocks:
            if not block.is_diagonal:
                self._gradient(writer, *lower, block.rows, block.columns)
                self._gradient(writer, *upper, block.columns, block.rows)
        return self._diagonal() + writer.done()

    def _gradient(
        self, writer: Writer, slopes: int, values: int, rows: range, columns: range
    ) -> None:
        for row in rows[::MOST_GRADIENT_ROWS]:
            for column in columns[::GRADIENT_COLUMNS]:
                writer.write(
                    Code.GRADIENT,
                    Panel.SLOPES,
                    slopes + row,
                    min(MOST_GRADIENT_ROWS, rows.stop - row),
                    values + column,
                    columns=min(GRADIENT_COLUMNS, columns.stop - column),
                    layer=self._weight,
                    offset=row * self._size + column,
                    row_step=self._size,
                    column_step=1,
                )
