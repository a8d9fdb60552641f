"""Columns whose cells are numbers: of a kind of one's own, plain ones, and angles."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskedflow.columns.cells import Cells, Mask, Numbers, number_cells, numbers
from maskedflow.columns.column import Arguments, Column, Part
from maskedflow.columns.grid import Grid
from maskedflow.columns.numeric import guess_numbers, range_of, specify_numbers
from maskedflow.sources.arrow_types import is_number

EDGE = 2.0
"""How many steps from a bound a grid is still bent: a count of few begins like its logarithm."""


class Value(Column, ABC):
    """A column whose cells are numbers on the real line, whatever they are written as.

    A new kind extends this class and says how cells become numbers and back. Bounds, a grid, atoms
    and missing cells are seen to here. The density is one per unit of these numbers.

    Example:
        >>> class Percents(Value, kinds=("percents",)):
        ...     def numbers(self, cells, start=0, *, strict=True):
        ...         return np.array([float(text.rstrip("%")) for text in cells.to_pylist()])
        ...
        ...     def cells(self, x, present):
        ...         return pa.array([f"{number:g}%" for number in x], mask=~present)
        >>> share = Column("share", "percents", pa.string(), low=0, high=100, step=1)
        >>> share.encode(pa.table({"share": ["45%", "101%"]})).impossible
        array([False,  True])
    """

    part: ClassVar[Part] = "values"
    written: ClassVar[tuple[str, ...]] = ("kind", "step", "atoms", "missing")

    @abstractmethod
    def numbers(self, cells: pa.ChunkedArray, start: int = 0, *, strict: bool = True) -> Numbers:
        """Cells of any type that can be read as what they are, as float64; NaN if missing.

        If strict, numbers are rounded to what the column's type can hold.

        Raises:
            ValueError: If a cell cannot be read; the message names the column and the row.
        """

    @abstractmethod
    def cells(self, x: Numbers, present: Mask) -> pa.Array:
        """Cells of the column's type, null where none is present: the inverse of `numbers`."""

    @property
    def code_units(self) -> tuple[float, ...]:
        if not self.step:
            return (0.0,) * (1 + self.missing + len(self.atoms))
        cell, atom = math.log(self.width / self.step), -math.log(self.step)
        return (cell, *[0.0] * self.missing, *[atom] * len(self.atoms))

    @property
    def grid(self) -> Grid | None:
        """The finest grid of its numbers, or None."""
        if not self.step:
            return None
        return Grid(self.width, self.origin, self.low, self.high, self.atoms)

    @property
    def is_rounded(self) -> bool:
        """Whether a number off the finest grid, which its type can hold, counts as the nearest."""
        exact = pa.types.is_integer(self.type) or pa.types.is_decimal(self.type)
        return self.unit > 0 and not exact

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        if not (grid := self.grid):
            return self.low, self.high
        low, high = (None if edge is None else edge * self.width for edge in grid.edges)
        return low, high

    @property
    def left_out(self) -> tuple[int, ...]:
        return self.grid.left_out if self.grid else ()

    @property
    def inner(self) -> float:
        """A value within these bounds, on the grid."""
        low, high = self.bounds
        if self.step:
            return low if low is not None else 0.0 if high is None else high - self.width
        if low is not None and high is not None:
            return (low + high) / 2
        return low + 1 if low is not None else 0.0 if high is None else high - 1

    def encode(self, table: pa.Table, start: int = 0, *, strict: bool = True) -> Cells:
        x = self.numbers(table.column(self.name), start, strict=strict)
        missing = np.isnan(x)
        code = missing.astype(np.int64)
        between = np.zeros_like(missing)
        if strict and self.is_rounded and self.grid:
            between = self.grid.between(x)
        for i, atom in enumerate(self.atoms):
            nearest = between & (np.abs(x - atom) < self.unit / 2)
            code[(x == atom) | nearest] = self.missing + 1 + i
        observed = code == 0
        x, outside = self._to_values(np.where(observed, x, 0.0), strict)
        impossible = (missing & (not self.missing)) | (outside & observed)
        # A number that is impossible is taken for one that is not: all that counts is its mask.
        x = np.where(impossible, self.inner, np.where(observed, x, 0.0))
        return Cells(np.where(impossible, 0, code), x, observed | impossible, impossible)

    def decode(self, code: NDArray[Any], number: NDArray[Any]) -> pa.Array:
        x = self._from_values(number)
        for i, atom in enumerate(self.atoms):
            x = np.where(code == self.missing + 1 + i, atom, x)
        return self.cells(x, ~((code == 1) & self.missing))

    def _to_values(self, x: Numbers, strict: bool) -> tuple[Numbers, Mask]:
        """Numbers as values of `Rows`, and those that cannot be."""
        if grid := self.grid:
            cell, off = grid.cells(x, strict=not (strict and self.is_rounded))
            if not strict:
                cell, off = np.where(off, grid.places(x), cell), np.zeros_like(off)
            return cell * self.width, off
        outside = np.zeros(len(x), np.bool_)
        if strict and self.low is not None:
            outside |= x <= self.low
        if strict and self.high is not None:
            outside |= x >= self.high
        return x, outside

    def _from_values(self, values: NDArray[Any]) -> Numbers:
        if not (grid := self.grid):
            return values
        cell, nearest = values / self.width, np.rint(values / self.width)
        at = np.abs(cell - nearest) <= 1e-6 + 2.0**-51 * np.abs(cell)
        return grid.numbers(np.where(at, nearest, np.floor(cell)))

    def within_range(self, cells: pa.ChunkedArray, given: Arguments) -> Column:
        x = self.numbers(cells)
        x = x[~np.isnan(x)]
        if not len(x) or x.min() == x.max():
            return self
        found = range_of(x, self.step, self.atoms)
        return replace(self, **{name: found[name] for name in found if name not in given})

    def free(self) -> Column:
        return replace(self, step=0.0, unit=0.0, atoms=(), low=None, high=None)

    def as_numbers(self, cells: pa.ChunkedArray) -> Numbers:
        return self.numbers(cells)

    def from_numbers(self, x: Numbers) -> pa.Array:
        missing = np.isnan(x)
        return self.cells(np.where(missing, 0.0, x), ~missing)


class Number(Value, kinds=("continuous", "positive", "bounded", "discretised")):
    """A column of numbers."""

    wanted = "numbers"
    fits = staticmethod(is_number)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "discretised" and not self.step:
            raise self.error(f"step: expected the positive width of a grid, got {self.step:g}")
        if self.kind == "positive" and self.low is None:
            raise self.error("a positive column needs its lower bound, such as low = 0")
        if self.kind == "bounded" and self.low is None and self.high is None:
            raise self.error("a bounded column needs a bound, low or high or both")

    @property
    def edge(self) -> float:
        return EDGE * self.step if self.kind == "discretised" and self.unit else 0.0

    @classmethod
    def infer(cls, name: str, cells: pa.ChunkedArray, given: Arguments) -> Arguments | None:
        if not is_number(cells.type):
            return None
        x = numbers(name, cells)
        x = x[~np.isnan(x)]
        if "kind" not in given:
            return guess_numbers(x, cells.type, len(x) < len(cells))
        return specify_numbers(name, given["kind"], x, cells.type, given) if len(x) else None

    def within_range(self, cells: pa.ChunkedArray, given: Arguments) -> Column:
        found = super().within_range(cells, given)
        return found if self.step or found is self else replace(found, kind="bounded")

    def free(self) -> Column:
        return Column(self.name, "continuous", pa.float64(), missing=self.missing)

    def numbers(self, cells: pa.ChunkedArray, start: int = 0, *, strict: bool = True) -> Numbers:
        rounded = strict or pa.types.is_floating(self.type)
        return numbers(self.name, cells, start, self.type if rounded else None)

    def cells(self, x: Numbers, present: Mask) -> pa.Array:
        return number_cells(self.type, x, present)

    def from_numbers(self, x: Numbers) -> pa.Array:
        return pa.array(x, from_pandas=True)

    def _from_values(self, values: NDArray[Any]) -> Numbers:
        """Those on no grid are rounded to the column's type, and none onto a bound or beyond."""
        x = super()._from_values(values)
        if self.step:
            return x
        if pa.types.is_floating(self.type):
            dtype = self.type.to_pandas_dtype()
            least, most = dtype(-np.inf), dtype(np.inf)
            if self.low is not None:
                least = dtype(self.low)
                least = np.nextafter(least, most) if least <= self.low else least
            if self.high is not None:
                most = dtype(self.high)
                most = np.nextafter(most, -np.inf, dtype=dtype) if most >= self.high else most
            finite = np.clip(x, np.finfo(dtype).min, np.finfo(dtype).max).astype(dtype)
            inside: Numbers = np.clip(finite, least, most).astype(np.float64)
            return inside
        least = -np.inf if self.low is None else math.floor(self.low) + 1
        most = np.inf if self.high is None else math.ceil(self.high) - 1
        return np.clip(np.rint(x), least, most) if pa.types.is_integer(self.type) else x


class Angle(Number, kinds=("angle",)):
    """A column of numbers that are the same after a full turn; it is never guessed."""

    part: ClassVar[Part] = "angles"
    written: ClassVar[tuple[str, ...]] = ("kind", "missing")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.turn > 0:
            raise self.error("an angle needs its period, a full turn such as period = 360")

    @classmethod
    def infer(cls, name: str, cells: pa.ChunkedArray, given: Arguments) -> Arguments | None:
        if "kind" not in given or "low" in given or not is_number(cells.type):
            return None
        x = numbers(name, cells)
        x = x[~np.isnan(x)]
        half = (given.get("period") or 0.0) / 2
        return {"low": -half if (x < 0).any() and (x <= half).all() else 0.0}

    def free(self) -> Column:
        return self

    @property
    def turn(self) -> float:
        """Its period."""
        return self.period or 0.0

    @property
    def headline(self) -> str:
        return f"angle of period {self.period:g}"

    @property
    def inner(self) -> float:
        return 0.0

    @property
    def code_units(self) -> tuple[float, ...]:
        return (math.log(2 * math.pi / self.turn), *super().code_units[1:])

    def _to_values(self, x: Numbers, strict: bool) -> tuple[Numbers, Mask]:
        turn = x / self.turn
        turn = turn - np.floor(turn + 0.5)
        return np.where(turn >= 0.5, -0.5, turn) * (2 * math.pi), np.zeros(len(x), np.bool_)

    def _from_values(self, values: NDArray[Any]) -> Numbers:
        start = self.low or 0.0
        x = start + np.mod(values / (2 * math.pi) * self.turn - start, self.turn)
        return np.where(x >= start + self.turn, start, x)  # a tiny negative turn rounds up

    def as_numbers(self, cells: pa.ChunkedArray) -> Numbers:
        x, low = self.numbers(cells), self.low or 0.0
        kept = ((low <= x) & (x < low + self.turn)) | np.isin(x, self.atoms)
        return np.where(kept, x, low + np.mod(x - low, self.turn))
