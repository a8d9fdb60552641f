"""Columns that say nothing new, and are no part of the density: constants and duplicates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskedflow.columns.cells import Cells, Mask, equal, plain
from maskedflow.columns.column import Column
from maskedflow.columns.types import is_category, is_number, is_temporal

__all__ = ["Constant", "Duplicate", "Fixed"]


class Fixed(Column, ABC):
    """A column whose cells are known without looking at it."""

    @property
    @abstractmethod
    def expected(self) -> str:
        """What its cells are, for messages."""

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
    def guess(cls, name: str, cells: pa.ChunkedArray) -> dict[str, Any] | None:
        kind = cells.type
        if not (is_category(kind) or is_temporal(kind) or pa.types.is_boolean(kind)):
            return None  # of numbers it is told with all else that they may be
        values = plain(name, kind, cells).unique()
        if len(values) > 1:
            return None
        return {"kind": "constant", "value": _value(values, kind), "note": "the same in all rows"}

    @classmethod
    def specify(
        cls, name: str, kind: str, cells: pa.ChunkedArray, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        if "value" in given:
            return {}
        values = plain(name, cells.type, cells).unique()
        if len(values) > 1:
            raise ValueError(
                f"column {name!r}: expected the same in all rows, found {len(values):,} values"
            )
        return {"value": _value(values, cells.type)}

    @property
    def headline(self) -> str:
        return f"constant {self.value!r}" if self.value is not None else "empty"

    @property
    def expected(self) -> str:
        return f"{self.value!r}"

    def differs(self, table: pa.Table, start: int = 0) -> Mask:
        cells = plain(self.name, self.type, table.column(self.name), start)
        value = float(self.value) if isinstance(self.value, bool) else self.value
        return ~equal(cells, pa.scalar(value, cells.type))

    def decode(self, code: NDArray[Any], number: NDArray[Any]) -> pa.Array:
        n, dtype = len(code), self.type
        if self.value is None:
            return pa.nulls(n, dtype)
        if is_temporal(dtype):
            width = pa.int32() if dtype.bit_width == 32 else pa.int64()
            return pa.array([self.value] * n, pa.int64()).cast(width).cast(dtype)
        if pa.types.is_dictionary(dtype):
            indices, values = np.zeros(n, np.int8), pa.array([self.value]).cast(dtype.value_type)
            return pa.DictionaryArray.from_arrays(
                pa.array(indices).cast(dtype.index_type), values, ordered=dtype.ordered
            )
        value = float(self.value) if is_number(dtype) else self.value
        return pa.array([value] * n).cast(dtype, safe=False)


class Duplicate(Fixed, kinds=("duplicate",)):
    """A column that repeats another, from which it is copied."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of is None:
            raise self.error("of: a duplicate needs the name of the column that it repeats")

    @property
    def headline(self) -> str:
        return f"duplicate of {self.of}"

    @property
    def expected(self) -> str:
        return f"that of column {self.of!r}"

    def differs(self, table: pa.Table, start: int = 0) -> Mask:
        cells = plain(self.name, self.type, table.column(self.name), start)
        return ~equal(cells, plain(self.name, self.type, table.column(self.of), start))


def _value(values: pa.ChunkedArray, dtype: pa.DataType) -> Any:
    """The first of some plain values as it is written in a schema."""
    value = values[0].as_py()
    return bool(value) if pa.types.is_boolean(dtype) and value is not None else value
