"""Why a cell cannot be: what its column expects, and what was found."""

from __future__ import annotations

from datetime import date, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from .cells import is_missing
from .column import Column

SHOWN = 5
"""The most levels that are all told."""


def reason(column: Column, table: pa.Table, row: int) -> str:
    """Says why a cell of a table, which its column cannot hold, has density 0.

    Example:
        >>> wind = Column("share", "bounded", pa.float64(), low=0.0, high=1.0)
        >>> reason(wind, pa.table({"share": [0.5, 1.5]}), 1)
        "column 'share': expected numbers below 1, found 1.5"
    """
    cells = table.column(column.name).slice(row, 1)
    missing = bool(is_missing(cells)[0])
    found = "a missing value" if missing else told(cells[0])
    return (
        f"column {column.name!r}: expected {_expected(column, table, row, missing)}, found {found}"
    )


def told(cell: pa.Scalar) -> str:
    """A cell as text in which strings have quotes, and dates have not."""
    value: Any = cell.as_py()
    return str(value) if isinstance(value, date | time | timedelta) else repr(value)


def _expected(column: Column, table: pa.Table, row: int, missing: bool) -> str:
    if column.of is not None:
        return f"{told(table.column(column.of)[row])} as in {column.of!r}, which it repeats"
    if column.part is None:
        none = np.zeros(1, np.int64)
        return "no value" if column.value is None else told(column.decode(none, none)[0])
    if missing:
        return "a value, for none was missing in fit"
    if column.levels:
        return f"{_levels(column)}"
    x = float(column.as_numbers(table.column(column.name).slice(row, 1))[0])
    text = column.text or "{:g}".format
    grid = bool(column.step)
    if column.low is not None and (x < column.low or (x == column.low and not grid)):
        return f"{'at least' if grid else 'numbers above'} {text(column.low)}"
    if column.high is not None and (x > column.high or (x == column.high and not grid)):
        return f"{'at most' if grid else 'numbers below'} {text(column.high)}"
    if grid and column.text is None:
        start = column.low if column.low is not None else column.origin
        return f"steps of {column.step:g} from {start:g}"
    return f"{column.summary}"


def _levels(column: Column) -> str:
    """The levels that there are, or some of them."""
    shown = [repr(level) for level in column.levels[:SHOWN]]
    if len(column.levels) <= SHOWN:
        return " or ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
    return f"one of {len(column.levels):,} levels such as {', '.join(shown[:3])}"
