"""What is known of one column of a table: its kind and the parameters of that kind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa

from .grid import Grid
from .types import is_category, is_number, is_temporal, unit_of

__all__ = ["CODES", "FIXED", "VALUES", "Column", "Kind", "Level"]

Kind = Literal[
    "continuous",
    "positive",
    "bounded",
    "discretised",
    "date",
    "angle",
    "categorical",
    "ordinal",
    "boolean",
    "constant",
    "duplicate",
]
Level = str | int | float | bool

VALUES = ("continuous", "positive", "bounded", "discretised", "date")
"""Kinds whose cells are numbers on the real line."""
CODES = ("categorical", "ordinal", "boolean")
"""Kinds whose cells are one of a few levels."""
FIXED = ("constant", "duplicate")
"""Kinds that say nothing new, and are no part of the density."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: Its name.
        kind: What its cells are.
        type: The Arrow type that samples of it have.
        low: The lower bound of numbers, or None. Values on a grid may be at it, others may not.
        high: The upper bound alike.
        step: The width of the grid that all numbers are on; 0 if there is none.
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
    kind: Kind
    type: pa.DataType
    low: float | None = None
    high: float | None = None
    step: float = 0.0
    origin: float = 0.0
    period: float | None = None
    levels: tuple[Level, ...] = ()
    atoms: tuple[float, ...] = ()
    missing: bool = False
    of: str | None = None
    value: Level | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            kinds = ", ".join(get_args(Kind))
            raise self.error(f"kind: expected one of {kinds}, got {self.kind!r}")
        self._check_type()
        numbers = (self.low, self.high, self.step, self.origin, self.period, *self.atoms)
        if not all(x is None or math.isfinite(x) for x in numbers):
            raise self.error("expected finite numbers as bounds, step, origin, period and atoms")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise self.error(f"expected low < high, got {self.low:g} and {self.high:g}")
        if self.step < 0 or (self.kind == "discretised" and not self.step):
            raise self.error(f"step: expected the positive width of a grid, got {self.step:g}")
        if self.kind == "angle" and not (self.period and self.period > 0):
            raise self.error("an angle needs its period, a full turn such as period = 360")
        if self.kind == "positive" and self.low is None:
            raise self.error("a positive column needs its lower bound, such as low = 0")
        if self.kind == "bounded" and self.low is None and self.high is None:
            raise self.error("a bounded column needs a bound, low or high or both")
        if self.kind in CODES and not self.levels:
            raise self.error("levels: expected at least one")
        if len(set(self.levels)) < len(self.levels) or len(set(self.atoms)) < len(self.atoms):
            raise self.error("levels, atoms: expected each once")
        if self.kind == "duplicate" and self.of is None:
            raise self.error("of: a duplicate needs the name of the column that it repeats")

    def _check_type(self) -> None:
        if self.kind in FIXED:
            return
        if self.kind == "date":
            fits, wanted = is_temporal(self.type), "dates or times"
        elif self.kind == "boolean":
            fits, wanted = pa.types.is_boolean(self.type) or is_number(self.type), "true or false"
        elif self.kind in CODES:
            fits = is_category(self.type) or is_number(self.type) or pa.types.is_boolean(self.type)
            wanted = "strings, numbers or booleans"
        else:
            fits, wanted = is_number(self.type), "numbers"
        if not fits:
            raise self.error(f"kind {self.kind!r} needs {wanted}, found type {self.type}")

    def error(self, reason: str) -> ValueError:
        """An error about this column, to be raised."""
        return ValueError(f"column {self.name!r}: {reason}")

    @property
    def code_levels(self) -> int:
        """The number of levels of its code: its own or those of its state; 1 if it needs none."""
        return self.missing + (len(self.levels) if self.kind in CODES else 1 + len(self.atoms))

    @property
    def has_code(self) -> bool:
        """Whether it has a code: what its level is, or its state."""
        return self.kind in CODES or (self.kind not in FIXED and self.code_levels > 1)

    @property
    def grid(self) -> Grid | None:
        """The grid of its numbers, of dates counted from the origin, or None."""
        if not self.step:
            return None
        origin = 0.0 if self.kind == "date" else self.origin
        return Grid(self.step, origin, self.low, self.high, self.atoms)

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The bounds of its values in `Rows`: multiples of the step if they are on a grid."""
        if not (grid := self.grid):
            return self.low, self.high
        low, high = (None if edge is None else edge * self.step for edge in grid.edges)
        return low, high

    @property
    def inner(self) -> float:
        """A value within these bounds, on the grid; no turn of an angle."""
        if self.kind == "angle":
            return 0.0
        low, high = self.bounds
        if self.step:
            return low if low is not None else 0.0 if high is None else high - self.step
        if low is not None and high is not None:
            return (low + high) / 2
        return low + 1 if low is not None else 0.0 if high is None else high - 1

    @property
    def code_units(self) -> tuple[float, ...]:
        """What each level of its code adds to the log-density, as in `Layout`."""
        if self.kind in CODES:
            return (0.0,) * self.code_levels
        ordinary = math.log(2 * math.pi / (self.period or 1.0)) if self.kind == "angle" else 0.0
        atom = -math.log(self.step) if self.step else 0.0
        return (ordinary, *[0.0] * self.missing, *[atom] * len(self.atoms))

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        words = [self.kind + self._bounds()]
        if self.kind == "angle":
            words = [f"angle of period {self.period:g}"]
        elif self.kind == "duplicate":
            words = [f"duplicate of {self.of}"]
        elif self.kind == "constant":
            words = [f"constant {self.value!r}" if self.value is not None else "empty"]
        elif self.kind == "date":
            words = [f"date in {unit_of(self.type)}"]
        elif self.kind in CODES and self.kind != "boolean":
            words = [f"{self.kind}, {len(self.levels)} levels"]
        if self.step:
            words.append(f"steps of {self.step:g}")
        if self.atoms:
            plural = "s" if len(self.atoms) > 1 else ""
            words.append(f"atom{plural} at " + " and ".join(f"{atom:g}" for atom in self.atoms))
        if self.missing:
            words.append("may be missing")
        return ", ".join(words)

    def _bounds(self) -> str:
        if self.low is not None and self.high is not None:
            return f" ({self.low:g} to {self.high:g})"
        if self.low is not None:
            return f" (above {self.low:g})"
        return "" if self.high is None else f" (below {self.high:g})"
