"""Rows of numbers that have names: of any frame, beside others, with what is true of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maskedflow.columns import kind_of, to_arrow, weights_of

from .figures import Limits, limits_of

TAIL, EDGE = 0.003, 0.08
"""What of the rows is outside of a panel at either end, and the margin around the rest."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers that have names.

    Args:
        names: The columns, which are numbers.
        rows: Shape (n, D), NaN where a cell is missing.
        weights: How much each row counts, shape (n,); all the same if None.
    """

    names: tuple[str, ...]
    rows: Numbers
    weights: Numbers | None = None

    def chosen(self, columns: Sequence[str | int] | None) -> Table:
        """Some of the columns, by name or place; all if None."""
        if columns is None:
            return self
        places = [self._place(column) for column in columns]
        return Table(tuple(self.names[i] for i in places), self.rows[:, places], self.weights)

    def complete(self, name: str) -> Table:
        """The rows that have all numbers, and a weight.

        Raises:
            ValueError: If there is none; `name` is what the message calls them.
        """
        kept = np.isfinite(self.rows).all(1)
        if self.weights is not None:
            kept &= self.weights > 0
        if not kept.any():
            raise ValueError(f"{name}: expected rows of finite numbers, got none")
        weights = None if self.weights is None else self.weights[kept]
        return Table(self.names, self.rows[kept], weights)

    def _place(self, column: str | int) -> int:
        if isinstance(column, str) and column in self.names:
            return self.names.index(column)
        if isinstance(column, int | np.integer) and 0 <= column < len(self.names):
            return int(column)
        raise ValueError(f"columns: expected some of {', '.join(self.names)}, got {column!r}")


def table_of(frame: Any, weights: ArrayLike | None, name: str) -> Table:
    """The columns of numbers of an array, a tensor or a frame, and the weights of its rows.

    Raises:
        ValueError: If it has none, or weights do not fit.
    """
    if kind_of(frame) == "numpy":
        frame = frame if hasattr(frame, "ndim") else np.asarray(frame)
        frame = frame[:, None] if frame.ndim == 1 else frame
    found = numbers_of(to_arrow(frame, name), name)
    known = weights_of(frame) if weights is None else np.asarray(weights, np.float64)
    if known is None:
        return found
    if known.shape != found.rows.shape[:1]:
        raise ValueError(
            f"weights: expected one for each of the {len(found.rows)} rows of {name}, got shape"
            f" {known.shape}"
        )
    if not (known >= 0).all() or not 0 < known.sum() < np.inf:
        raise ValueError("weights: expected finite numbers of 0 or more, not all 0")
    return Table(found.names, found.rows, known)


def beside(table: Table, data: Any, weights: ArrayLike | None) -> Table:
    """Data in the columns of a table: by name where they have names, else in the same places.

    Raises:
        ValueError: If there are others.
    """
    found = table_of(data, weights, "data")
    if kind_of(data) != "numpy" and set(table.names) <= set(found.names):
        return found.chosen(table.names)
    if len(found.names) != len(table.names):
        raise ValueError(
            f"data: expected {len(table.names)} columns of numbers, {', '.join(table.names)}, got"
            f" {len(found.names)}"
        )
    return Table(table.names, found.rows, found.weights)


def truth_of(
    truth: ArrayLike | Mapping[str, float], names: Sequence[str], whole: Sequence[str]
) -> Numbers:
    """One number for each of the names, NaN where none is known.

    Raises:
        ValueError: If there are more or fewer than names or than all names there are.
    """
    if isinstance(truth, Mapping):
        if unknown := [name for name in truth if name not in whole]:
            raise ValueError(f"truth: expected some of {', '.join(whole)}, got {unknown[0]!r}")
        return np.array([truth.get(name, np.nan) for name in names], np.float64)
    cells = truth.numpy(force=True) if isinstance(truth, Tensor) else truth
    found = np.array(cells, np.float64).reshape(-1)
    if len(found) == len(whole):
        return found[[whole.index(name) for name in names]]
    if len(found) != len(names):
        raise ValueError(
            f"truth: expected {len(names)} numbers, for {', '.join(names)}, got {len(found)}"
        )
    return found


def limits_around(tables: Sequence[Table], truth: Numbers | None) -> list[Limits]:
    """For each column what holds nearly all complete rows of each table, and the truth."""
    found = []
    for i in range(tables[0].rows.shape[1]):
        ends = [limits_of(one.rows[:, i], TAIL, EDGE, one.weights) for one in tables]
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        if truth is not None and np.isfinite(truth[i]):
            margin = EDGE * (high - low)
            low, high = min(low, truth[i] - margin), max(high, truth[i] + margin)
        found.append((low, high))
    return found


def numbers_of(table: pa.Table, name: str) -> Table:
    """The columns of numbers of a table; a ValueError if it has none."""
    kinds = pa.types
    kept = [
        field.name
        for field in table.schema
        if kinds.is_floating(field.type) or kinds.is_integer(field.type)
    ]
    if not kept:
        raise ValueError(
            f"{name}: expected a column of numbers, got {', '.join(table.column_names)}"
        )
    columns = [table[one].cast(pa.float64()).to_numpy() for one in kept]
    return Table(tuple(kept), np.stack(columns, axis=1))
