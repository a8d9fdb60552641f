"""Columns of numbers: continuous, positive, bounded, or on a grid."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa

from maskedflow.columns.cells import Mask, Numbers, number_cells, numbers
from maskedflow.columns.column import Arguments, Column
from maskedflow.columns.numeric import guess_numbers, specify_numbers
from maskedflow.columns.types import is_number

from .value import Value

__all__ = ["Number"]


class Number(Value, kinds=("continuous", "positive", "bounded", "discretised")):
    """A column of numbers."""

    wanted = "numbers"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "discretised" and not self.step:
            raise self.error(f"step: expected the positive width of a grid, got {self.step:g}")
        if self.kind == "positive" and self.low is None:
            raise self.error("a positive column needs its lower bound, such as low = 0")
        if self.kind == "bounded" and self.low is None and self.high is None:
            raise self.error("a bounded column needs a bound, low or high or both")

    @classmethod
    def fits(cls, dtype: pa.DataType) -> bool:
        return is_number(dtype)

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

    def _rounded(self, x: Numbers) -> Numbers:
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
