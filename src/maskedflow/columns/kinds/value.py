"""Columns whose cells are numbers on the real line, whatever they are written as."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskedflow.columns.cells import Cells, Mask, Numbers
from maskedflow.columns.column import Arguments, Column, Part
from maskedflow.columns.grid import Grid
from maskedflow.columns.numeric import range_of

__all__ = ["Value"]


class Value(Column, ABC):
    """A column whose cells are numbers on the real line.

    A kind of one's own extends this class, and says how cells become numbers and back: bounds,
    grid, atoms and missing cells are seen to here. The density is that of the number.

    Example:
        >>> class Percentage(Value, kinds=("percentage",)):
        ...     wanted = "text such as 45%"
        ...     fits = staticmethod(pa.types.is_string)
        ...
        ...     def numbers(self, cells, start=0, *, strict=True):
        ...         texts = [math.nan if cell is None else cell for cell in cells.to_pylist()]
        ...         return np.array([float(str(text).rstrip("%")) for text in texts])
        ...
        ...     def cells(self, x, present):
        ...         return pa.array([f"{number:g}%" for number in x], mask=~present)
        >>> share = Column("share", "percentage", pa.string(), low=0, high=100, step=1)
        >>> cells = share.encode(pa.table({"share": ["45%", "101%"]}))
        >>> cells.number, cells.impossible
        (array([45.,  0.]), array([False,  True]))
    """

    part: ClassVar[Part] = "values"
    written: ClassVar[tuple[str, ...]] = ("kind", "step", "atoms", "missing")

    @abstractmethod
    def numbers(self, cells: pa.ChunkedArray, start: int = 0, *, strict: bool = True) -> Numbers:
        """Cells as float64; missing ones are NaN.

        Args:
            cells: The cells, of any type that can be read as what they are.
            start: The number of rows before these, for errors.
            strict: Whether numbers are rounded to what the column's type can hold.

        Raises:
            ValueError: If a cell cannot be read; the message names the column and the row.
        """

    @abstractmethod
    def cells(self, x: Numbers, present: Mask) -> pa.Array:
        """Cells of the column's type, null where none is present: the inverse of `numbers`."""

    @property
    def code_levels(self) -> int:
        return 1 + self.missing + len(self.atoms)

    @property
    def unit(self) -> float:
        """The logarithm of how much its value in `Rows` changes with its number."""
        return 0.0

    @property
    def code_units(self) -> tuple[float, ...]:
        atom = -math.log(self.step) if self.step else 0.0
        return (self.unit, *[0.0] * self.missing, *[atom] * len(self.atoms))

    @property
    def grid(self) -> Grid | None:
        """The grid of its numbers, or None."""
        if not self.step:
            return None
        return Grid(self.step, self.origin, self.low, self.high, self.atoms)

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        if not (grid := self.grid):
            return self.low, self.high
        low, high = (None if edge is None else edge * self.step for edge in grid.edges)
        return low, high

    @property
    def inner(self) -> float:
        """A value within these bounds, on the grid."""
        low, high = self.bounds
        if self.step:
            return low if low is not None else 0.0 if high is None else high - self.step
        if low is not None and high is not None:
            return (low + high) / 2
        return low + 1 if low is not None else 0.0 if high is None else high - 1

    def encode(self, table: pa.Table, start: int = 0, *, strict: bool = True) -> Cells:
        x = self.numbers(table.column(self.name), start, strict=strict)
        missing = np.isnan(x)
        code = missing.astype(np.int64)
        for i, atom in enumerate(self.atoms):
            code[x == atom] = self.missing + 1 + i
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
            cell, off = grid.cells(x)
            if not strict:
                cell, off = np.where(off, grid.places(x), cell), np.zeros_like(off)
            return cell * self.step, off
        outside = np.zeros(len(x), np.bool_)
        if strict and self.low is not None:
            outside |= x <= self.low
        if strict and self.high is not None:
            outside |= x >= self.high
        return x, outside

    def _from_values(self, values: NDArray[Any]) -> Numbers:
        if not (grid := self.grid):
            return self._rounded(values)
        cell, nearest = values / self.step, np.rint(values / self.step)
        at = np.abs(cell - nearest) <= 1e-6 + 2.0**-51 * np.abs(cell)
        return grid.numbers(np.where(at, nearest, np.floor(cell)))

    def _rounded(self, x: Numbers) -> Numbers:
        """Numbers that the column's type can hold, none of them at a bound or beyond."""
        return x

    def within_range(self, cells: pa.ChunkedArray, given: Arguments) -> Column:
        x = self.numbers(cells)
        x = x[~np.isnan(x)]
        if not len(x) or x.min() == x.max():
            return self
        found = range_of(x, self.step, self.atoms)
        return replace(self, **{name: found[name] for name in found if name not in given})

    def free(self) -> Column:
        return replace(self, step=0.0, atoms=(), low=None, high=None)

    def as_numbers(self, cells: pa.ChunkedArray) -> Numbers:
        return self.numbers(cells)

    def from_numbers(self, x: Numbers) -> pa.Array:
        missing = np.isnan(x)
        return self.cells(np.where(missing, 0.0, x), ~missing)
