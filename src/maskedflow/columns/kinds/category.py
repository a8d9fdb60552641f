"""Columns whose cells are one of a few levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskedflow.columns.cells import Cells, Numbers, number_cells, numbers, plain, strings
from maskedflow.columns.column import Arguments, Column
from maskedflow.columns.numeric import FEW, plain_numbers
from maskedflow.sources.arrow_types import is_category, is_number

MANY = 1000
"""The most levels of a categorical column."""


class Category(Column, kinds=("categorical",)):
    """A column of categories."""

    part = "codes"
    written = ("kind", "missing")
    wanted = "strings, numbers or booleans"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.levels:
            raise self.error("levels: expected at least one")

    @staticmethod
    def fits(dtype: pa.DataType, /) -> bool:
        return is_category(dtype) or is_number(dtype) or pa.types.is_boolean(dtype)

    @classmethod
    def infer(cls, name: str, cells: pa.ChunkedArray, given: Arguments) -> Arguments | None:
        if "levels" in given or not ("kind" in given or is_category(cells.type)):
            return None
        kind, note = "categorical", "strings"
        if pa.types.is_dictionary(cells.type):
            note = "categories"
            if cells.type.ordered:
                kind, note = "ordinal", "ordered categories"
        return {"kind": kind, "levels": _levels(name, cells), "note": note}

    @property
    def headline(self) -> str:
        return f"{self.kind}, {len(self.levels)} levels"

    @property
    def code_units(self) -> tuple[float, ...]:
        return (0.0,) * (len(self.levels) + self.missing)

    def encode(self, table: pa.Table, start: int = 0, *, strict: bool = True) -> Cells:
        cells = table.column(self.name)
        if isinstance(self.levels[0], str):
            values = strings(self.name, cells)
            levels = pa.array(self.levels, pa.string())
            index = pc.index_in(values, value_set=levels).fill_null(-1).to_numpy().astype(np.int64)
            missing = values.is_null().to_numpy()
        else:
            x = numbers(self.name, cells, start, self.type)
            known = np.asarray(self.levels, np.float64)
            order = np.argsort(known)
            place = order[np.searchsorted(known[order], x).clip(max=len(known) - 1)]
            missing = np.isnan(x)
            index = np.where((known[place] == x) | (~missing & (not strict)), place, -1)
        if self.missing:
            index = np.where(missing, len(self.levels), index)
        none = np.zeros(len(index))
        return Cells(index.clip(min=0), none, none.astype(np.bool_), index < 0)

    def decode(self, code: NDArray[Any], number: NDArray[Any]) -> pa.Array:
        dtype, missing = self.type, code == len(self.levels)
        indices = pa.array(np.where(missing, 0, code), mask=missing)
        levels = pa.array(self.levels)
        if is_number(dtype):
            levels = number_cells(dtype, np.asarray(self.levels, np.float64))
        if pa.types.is_dictionary(dtype):
            return pa.DictionaryArray.from_arrays(
                indices.cast(dtype.index_type), levels.cast(dtype.value_type), ordered=dtype.ordered
            )
        return levels.take(indices).cast(dtype)

    def as_numbers(self, cells: pa.ChunkedArray) -> Numbers:
        code = self.encode(pa.table({self.name: cells})).code.astype(np.float64)
        return np.where(code == len(self.levels), np.nan, code)

    def from_numbers(self, x: Numbers) -> pa.Array:
        return self.decode(np.where(np.isnan(x), len(self.levels), x).astype(np.int64), x)


class Ordinal(Category, kinds=("ordinal",)):
    """A column of categories in an order."""

    ordered = True

    @classmethod
    def infer(cls, name: str, cells: pa.ChunkedArray, given: Arguments) -> Arguments | None:
        return super().infer(name, cells, given) if "kind" in given else None

    @property
    def scale(self) -> Numbers | None:
        if any(isinstance(level, str | bool) for level in self.levels):
            return None
        return np.asarray(self.levels, np.float64)

    def free(self) -> Column:
        if self.scale is None:
            return self
        return Column(self.name, "continuous", pa.float64(), missing=self.missing)


class Boolean(Category, kinds=("boolean",)):
    """A column of what is true or false."""

    wanted = "true or false"
    ordered = True

    @staticmethod
    def fits(dtype: pa.DataType, /) -> bool:
        return pa.types.is_boolean(dtype) or is_number(dtype)

    @classmethod
    def infer(cls, name: str, cells: pa.ChunkedArray, given: Arguments) -> Arguments | None:
        found = {"kind": "boolean", "levels": (False, True), "note": "true or false"}
        return found if "kind" in given or pa.types.is_boolean(cells.type) else None

    @property
    def headline(self) -> str:
        return "boolean"


def _levels(name: str, cells: pa.ChunkedArray) -> tuple[Any, ...]:
    """The levels that occur, in the order of an ordered dictionary or else ascending."""
    if is_category(cells.type):
        levels = plain(name, cells.type, cells).unique().drop_null().to_pylist()
    else:
        x = numbers(name, cells)
        levels = plain_numbers(np.unique(x[~np.isnan(x)]))
    rows = len(cells)
    if len(levels) > MANY or (len(levels) > FEW and 2 * len(levels) > rows):
        raise ValueError(
            f"column {name!r}: {len(levels):,} categories in {rows:,} rows are too many to have "
            "a probability each; leave the column out, or join the rare ones"
        )
    if pa.types.is_dictionary(cells.type) and cells.type.ordered:
        dictionary = cells.unify_dictionaries().chunk(0).dictionary.cast(pa.string()).to_pylist()
        return tuple(sorted(levels, key=dictionary.index))
    return tuple(sorted(levels))
