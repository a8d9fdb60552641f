"""Columns that are no part of the density: constants, duplicates, and those left out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskedflow.columns.cells import Cells, Mask, equal, from_ticks, plain
from maskedflow.columns.column import Arguments, Column
from maskedflow.sources.arrow_types import is_category, is_temporal


class Fixed(Column, ABC):
    """A column whose cells are known without looking at it."""

    @abstractmethod
    def differs(self, table: pa.Table, start: int = 0) -> Mask:
        """Which cells are not what they should be."""

    def encode(self, table: pa.Table, start: int = 0, *, strict: bool = True) -> Cells:
        none = np.zeros(table.num_rows)
        nowhere = none.astype(np.bool_)
        differs = self.differs(table, start) if strict else nowhere
        return Cells(none.astype(np.int64), none, nowhere, differs)


class Constant(Fixed, kinds=("constant",)):
    """A column that holds the same everywhere."""

    @classmethod
    def infer(cls, name: str, cells: pa.ChunkedArray, given: Arguments) -> Arguments | None:
        kind = cells.type
        told = is_category(kind) or is_temporal(kind) or pa.types.is_boolean(kind)  # else by Number
        if "value" in given or not ("kind" in given or told):
            return None
        values = plain(name, kind, cells).unique()
        if len(values) == 1:
            value = values[0].as_py()
            value = bool(value) if pa.types.is_boolean(kind) and value is not None else value
            return {"kind": "constant", "value": value, "note": "the same in all rows"}
        if "kind" in given:
            raise ValueError(
                f"column {name!r}: expected the same in all rows, found {len(values):,} values"
            )
        return None

    @property
    def headline(self) -> str:
        return f"constant {self.value!r}" if self.value is not None else "empty"

    def differs(self, table: pa.Table, start: int = 0) -> Mask:
        cells = plain(self.name, self.type, table.column(self.name), start)
        value = float(self.value) if isinstance(self.value, bool) else self.value
        return ~equal(cells, pa.scalar(value, cells.type))

    def decode(self, code: NDArray[Any], number: NDArray[Any]) -> pa.Array:
        if self.value is None:
            return pa.nulls(len(code), self.type)
        if is_temporal(self.type):
            return from_ticks(self.type, pa.array([self.value] * len(code), pa.int64()))
        only = Column(self.name, "categorical", self.type, levels=(self.value,))
        return only.decode(code, number)


class Ignored(Column, kinds=("ignore",)):
    """A column that is left out: its cells may be any, rows need not have it, samples have not."""

    @property
    def headline(self) -> str:
        return "left out"

    def encode(self, table: pa.Table, start: int = 0, *, strict: bool = True) -> Cells:
        none = np.zeros(table.num_rows)
        nowhere = none.astype(np.bool_)
        return Cells(none.astype(np.int64), none, nowhere, nowhere)


class Duplicate(Fixed, kinds=("duplicate",)):
    """A column that repeats another, from which it is copied."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of is None:
            raise self.error("of: a duplicate needs the name of the column that it repeats")

    @property
    def headline(self) -> str:
        return f"duplicate of {self.of}"

    def differs(self, table: pa.Table, start: int = 0) -> Mask:
        cells = plain(self.name, self.type, table.column(self.name), start)
        return ~equal(cells, plain(self.name, self.type, table.column(self.of), start))
