"""Columns of angles: numbers that are the same after a full turn."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskedflow.columns.cells import Mask, Numbers, numbers
from maskedflow.columns.column import Arguments, Column, Part
from maskedflow.columns.types import is_number

from .number import Number

__all__ = ["Angle"]


class Angle(Number, kinds=("angle",)):
    """A column of angles; they are never guessed."""

    part: ClassVar[Part] = "angles"
    written: ClassVar[tuple[str, ...]] = ("kind", "missing")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.turn > 0:
            raise self.error("an angle needs its period, a full turn such as period = 360")

    @property
    def turn(self) -> float:
        """Its period."""
        return self.period or 0.0

    @classmethod
    def infer(cls, name: str, cells: pa.ChunkedArray, given: Arguments) -> Arguments | None:
        if "kind" not in given or "low" in given or not is_number(cells.type):
            return None
        x = numbers(name, cells)
        x = x[~np.isnan(x)]
        half = (given.get("period") or 0.0) / 2
        return {"low": -half if (x < 0).any() and (x <= half).all() else 0.0}

    def within_range(self, cells: pa.ChunkedArray, given: Arguments) -> Column:
        return self

    def free(self) -> Column:
        return self

    @property
    def headline(self) -> str:
        return f"angle of period {self.period:g}"

    @property
    def inner(self) -> float:
        return 0.0

    @property
    def unit(self) -> float:
        return math.log(2 * math.pi / self.turn)

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
