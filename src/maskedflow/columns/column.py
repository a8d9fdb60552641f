"""What is known of one column of a table; each kind of column is a class, found by its name."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import pyarrow as pa

from .cells import Cells, Numbers

Arguments = dict[str, Any]
Level = str | int | float | bool
Part = Literal["codes", "values", "angles"]

KINDS: dict[str, type[Column]] = {}
"""The class of each kind of column, by its name; a class adds itself when it is made."""


@dataclass(frozen=True, repr=False)
class Column:
    """One column of a table.

    What is made is an instance of the class of its kind, which tells what the cells are as codes,
    values or angles. To make a new kind that is a value, extend `maskedflow.columns.Value`.

    Args:
        name: Its name.
        kind: What its cells are.
        type: The Arrow type that samples of it have.
        low: The lower bound of numbers, or None. Values on a grid may be at it, others may not.
        high: The upper bound alike.
        step: The width of the grid that numbers are on; 0 if there is none.
        unit: The width of the finest grid that they may be on, at or below the step, whose numbers
            that are no steps are just unlikely. A number off this grid, too, counts as the nearest
            one. If 0, numbers between the steps are impossible.
        origin: A number on the grid; the zero of dates, in days or seconds since 1970.
        period: A full turn of an angle.
        levels: The values of a categorical, ordinal or boolean column, in order.
        atoms: Single numbers that have a probability of their own.
        missing: Whether cells may be missing, which then has a probability of its own.
        of: The column that a duplicate repeats.
        value: What a constant column holds everywhere: None if it is empty, ticks of a date.
        note: Why the column is taken for what it is.

    Raises:
        ValueError: If a parameter is out of its range, or does not go with the kind.

    Example:
        >>> print(Column("income", "positive", pa.float64(), low=0.0, atoms=(0.0,)).summary)
        positive (above 0), atom at 0
    """

    name: str
    kind: str
    type: pa.DataType
    low: float | None = None
    high: float | None = None
    step: float = 0.0
    unit: float = 0.0
    origin: float = 0.0
    period: float | None = None
    levels: tuple[Level, ...] = ()
    atoms: tuple[float, ...] = ()
    missing: bool = False
    of: str | None = None
    value: Level | None = None
    note: str = ""

    part: ClassVar[Part | None] = None
    """The part of a row that it is in; None if it says nothing new, and has no density."""
    written: ClassVar[tuple[str, ...]] = ("kind",)
    """The parameters that a file always has; others only if they differ from their default."""
    wanted: ClassVar[str] = "cells of any type"
    """What its cells have to be, for errors."""
    ordered: ClassVar[bool] = False
    """Whether its levels are in an order."""

    def __init_subclass__(cls, kinds: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        KINDS.update(dict.fromkeys(kinds, cls))

    def __new__(cls, name: str = "", kind: str = "", *args: Any, **kwargs: Any) -> Column:
        if cls is Column and kind not in KINDS:
            kinds = ", ".join(KINDS)
            raise ValueError(f"column {name!r}: kind: expected one of {kinds}, got {kind!r}")
        return super().__new__(KINDS[kind] if cls is Column else cls)

    def __post_init__(self) -> None:
        if KINDS.get(self.kind) is not type(self):
            raise self.error(f"kind: {self.kind!r} is none of class {type(self).__name__}")
        if not self.fits(self.type):
            raise self.error(f"kind {self.kind!r} needs {self.wanted}, found type {self.type}")
        grid = self.step, self.unit, self.origin
        numbers = (self.low, self.high, *grid, self.period, *self.atoms)
        if not all(x is None or math.isfinite(x) for x in numbers):
            raise self.error("expected finite numbers as bounds, grid, period and atoms")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise self.error(f"expected low < high, got {self.low:g} and {self.high:g}")
        if self.step < 0:
            raise self.error(f"step: expected the positive width of a grid, got {self.step:g}")
        whole = round(self.step / self.unit) if self.unit > 0 else 1
        if (
            self.unit < 0
            or whole < 1
            or not math.isclose(whole * (self.unit or self.step), self.step)
        ):
            wanted = f"expected a whole part of the step {self.step:g}"
            raise self.error(f"unit: {wanted}, got {self.unit:g}")
        if len(set(self.levels)) < len(self.levels) or len(set(self.atoms)) < len(self.atoms):
            raise self.error("levels, atoms: expected each once")

    def __repr__(self) -> str:
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
        return f"Column({', '.join(shown)})"

    def error(self, reason: str) -> ValueError:
        """An error about this column, to be raised."""
        return ValueError(f"column {self.name!r}: {reason}")

    @staticmethod
    def fits(dtype: pa.DataType, /) -> bool:
        """Whether a column of this kind may have cells of this type."""
        return True

    @classmethod
    def infer(cls, name: str, cells: pa.ChunkedArray, given: Arguments) -> Arguments | None:
        """Arguments of `Column` that its cells tell, or None if they are not of this class.

        A kind that is among the given arguments is one of this class. If there is none, some cells
        are not missing, and kind and note are told.
        """
        return None

    @classmethod
    def plain(cls, arguments: Arguments) -> Arguments:
        """Arguments of `Column` from those of an author, who writes bounds as cells are written.

        Raises:
            ValueError: If a bound is nothing that such a column can have.
        """
        for key in ("low", "high"):
            bound = arguments.get(key)
            if not (bound is None or isinstance(bound, int | float)):
                name = arguments["name"]
                raise ValueError(
                    f"column {name!r}: {key}: expected a number, got {reprlib.repr(bound)}"
                )
        return arguments

    def as_written(self, key: str) -> Any:
        """A parameter as its author would write it: the inverse of `plain`."""
        return getattr(self, key)

    def within_range(self, cells: pa.ChunkedArray, given: Arguments) -> Column:
        """The column with the range of its cells as bounds, where none are given."""
        return self

    def free(self) -> Column:
        """The same column, whose numbers may be any: what a density is conditional on."""
        return self

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        words = [self.headline]
        if self.step:
            seldom = f", seldom {self.unit:,g}" if 0 < self.unit < self.step else ""
            words.append(f"steps of {self.step:,g}{seldom}")
        if self.atoms:
            plural = "s" if len(self.atoms) > 1 else ""
            words.append(f"atom{plural} at " + " and ".join(f"{atom:g}" for atom in self.atoms))
        if self.missing:
            words.append("may be missing")
        return ", ".join(words)

    @property
    def headline(self) -> str:
        """The first of these words: its kind and what else is most important."""
        if self.low is not None and self.high is not None:
            return f"{self.kind} ({self.low:g} to {self.high:g})"
        above, below = ("from", "up to") if self.step else ("above", "below")
        if self.low is not None:
            return f"{self.kind} ({above} {self.low:g})"
        return self.kind if self.high is None else f"{self.kind} ({below} {self.high:g})"

    @property
    def width(self) -> float:
        """The width of the cells of its values in `Rows`; 0 if they are on no grid."""
        return self.unit or self.step

    @property
    def code_levels(self) -> int:
        """The number of levels of its code: its own or those of its state; 1 if it needs none."""
        return len(self.code_units)

    @property
    def has_code(self) -> bool:
        """Whether it has a code: what its level is, or its state."""
        return self.part == "codes" or self.code_levels > 1

    @property
    def code_units(self) -> tuple[float, ...]:
        """What each level of its code adds to the log-density, as in `Layout`."""
        return (0.0,)

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The bounds of its values in `Rows`: multiples of the width if they are on a grid."""
        return self.low, self.high

    @property
    def edge(self) -> float:
        """How far its bounds bend the line that its values are on, as in `Layout`."""
        return 0.0

    @property
    def left_out(self) -> tuple[int, ...]:
        """The cells of its grid that its values are counted without, as in `Layout`."""
        return ()

    def encode(self, table: pa.Table, start: int = 0, *, strict: bool = True) -> Cells:
        """Turns its cells of a table into codes and numbers; `decode` is the way back.

        If not strict, a number may lie between the cells of the grid or out of bounds, or has the
        code of one of the levels. Rows of errors are counted from `start`.

        Raises:
            ValueError: If the type of the cells does not fit, or a number is infinite.
        """
        raise NotImplementedError

    def decode(self, code: Any, number: Any) -> pa.Array:
        """Turns codes and numbers into cells of the column's type, missing ones into null.

        Numbers on a grid may lie anywhere in their cell, [v, v + width) for the number v.
        """
        raise NotImplementedError

    def as_numbers(self, cells: pa.ChunkedArray) -> Numbers:
        """Its cells as numbers that can be compared, a category as its place; NaN if missing."""
        raise NotImplementedError

    def from_numbers(self, x: Numbers) -> pa.Array:
        """The cells whose numbers these are: the inverse of `as_numbers`."""
        raise NotImplementedError

    @property
    def scale(self) -> Numbers | None:
        """Its levels if they are numbers in an order, between which there may be others."""
        return None

    @property
    def text(self) -> Callable[[float], str] | None:
        """Writes the cell whose number is given; None if the number itself is what to write."""
        return None
