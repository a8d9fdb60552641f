"""Columns of dates, times of the day, moments and durations."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from maskedflow.columns.cells import Mask, Numbers, from_ticks, is_missing, ticks
from maskedflow.columns.column import Arguments
from maskedflow.columns.grid import Grid
from maskedflow.columns.numeric import ROWS, UNSEEN_ANYWHERE, rows_beyond
from maskedflow.sources.arrow_types import is_temporal, ticks_per_unit, type_of

from .number import Value

TIMES = (86_400, 43_200, 21_600, 10_800, 3600, 1800, 900, 600, 300, 60, 30, 15, 10, 5, 1)
"""Steps in which times are likely to be told, in seconds."""

_DAY = 86_400
_DATE = r"\d{4}-?\d{2}-?\d{2}"
_EXAMPLES = {dt.time: "08:30:00", dt.datetime: "2024-12-31"}

_YEAR_1, _YEAR_10000 = -719_162, 2_932_897
"""The first days of these years, counted from 1970."""


class Date(Value, kinds=("date",)):
    """A column of dates or times: days or seconds since its origin."""

    wanted = "dates or times"
    fits = staticmethod(is_temporal)

    @classmethod
    def infer(cls, name: str, cells: pa.ChunkedArray, given: Arguments) -> Arguments | None:
        """The earliest as the origin, and the steps in which all are told."""
        kind = cells.type
        if not is_temporal(kind) or is_missing(cells).all():
            return None
        count = ticks(name, kind, cells).drop_null().to_numpy()
        per_unit = ticks_per_unit(kind)
        origin = given.get("origin", int(count.min()) // per_unit)
        found: Arguments = {"kind": "date", "note": str(kind), "origin": float(origin)}
        since = count - round(origin * per_unit)
        if "step" not in given:
            found["step"] = step = _step(kind, int(np.gcd.reduce(since)))
            if not pa.types.is_date(kind):
                found["unit"] = step
            if "kind" not in given:
                found |= _ends(since / per_unit, step)
        return found

    @classmethod
    def plain(cls, arguments: Arguments) -> Arguments:
        """The bounds as numbers: days or seconds since the origin.

        The day that is a high bound of moments is all within it.
        """
        found, kind, origin = dict(arguments), arguments["type"], arguments.get("origin", 0.0)
        for key in ("low", "high"):
            if not isinstance(text := found.get(key), str):
                continue
            found[key] = _since(arguments["name"], key, text, kind, origin)
            if key == "high" and pa.types.is_timestamp(kind) and re.fullmatch(_DATE, text):
                # Half a step before midnight: by rounding, too, nothing is on the next day.
                half = arguments.get("step", 0.0) / 2
                found[key] += _DAY - max(half, 1 / ticks_per_unit(kind))
        return found

    def as_written(self, key: str) -> Any:
        value = super().as_written(key)
        if key not in ("low", "high") or value is None:
            return value
        cell = self.cells(np.array([value]), np.array([True]))
        bound = cell.cast(_told(self.type), safe=False)[0].as_py()
        if isinstance(bound, dt.timedelta):  # of which TOML knows none
            return value
        exact = _since(self.name, key, bound.isoformat(), self.type, self.origin) == value
        return bound if exact else value

    @property
    def headline(self) -> str:
        low, high = (None if x is None else self._text(x) for x in (self.low, self.high))
        words = [f"date in {'days' if pa.types.is_date(self.type) else 'seconds'}"]
        words += [] if low is None else [f"from {low}"]
        words += [] if high is None else [f"to {high}"]
        return " ".join(words)

    @property
    def grid(self) -> Grid | None:
        return Grid(self.width, 0.0, self.low, self.high, self.atoms) if self.step else None

    def numbers(self, cells: pa.ChunkedArray, start: int = 0, *, strict: bool = True) -> Numbers:
        per_unit = ticks_per_unit(self.type)
        count = ticks(self.name, self.type, cells)
        since = count.fill_null(0).to_numpy() - round(self.origin * per_unit)
        return np.where(count.is_null().to_numpy(), np.nan, since / per_unit)

    def cells(self, x: Numbers, present: Mask) -> pa.Array:
        dtype, per_unit = self.type, ticks_per_unit(self.type)
        count = np.rint(x * per_unit) + round(self.origin * per_unit)
        if pa.types.is_time(dtype):  # a day has no second before its first one
            count = np.clip(count, 0, _DAY * per_unit - 1)
        # Of a draw from far away, the last moment that the type, and a calendar, can tell.
        limit = 2.0 ** (dtype.bit_width - 1)
        most = np.nextafter(limit, 0.0) if dtype.bit_width == 64 else limit - 1
        # The least integer of 64 bits is no time in NumPy, and Arrow parses text by whole seconds.
        least = -(most // per_unit) * per_unit
        if pa.types.is_date(dtype) or pa.types.is_timestamp(dtype):
            day = per_unit if pa.types.is_date(dtype) else _DAY * per_unit
            # A whole second, or day, before the end: floats of so many ticks skip some.
            least, most = max(least, _YEAR_1 * day), min(most, _YEAR_10000 * day - per_unit)
        count = np.clip(count, least, most)
        return from_ticks(dtype, pa.array(count.astype(np.int64), mask=~present))

    @property
    def text(self) -> Callable[[float], str]:
        return self._text

    def _text(self, x: float) -> str:
        text = str(self.from_numbers(np.array([x])).cast(_told(self.type), safe=False)[0].as_py())
        return text.removesuffix(" 00:00:00") if self.step >= _DAY else text


def _step(kind: pa.DataType, apart: int) -> float:
    """The steps in which all are told that are so many ticks apart, or a multiple of it."""
    per_unit = ticks_per_unit(kind)
    if pa.types.is_date(kind):
        return 1.0
    if apart % per_unit == 0:
        return float(next(t for t in TIMES if apart // per_unit % t == 0))
    decimals = next(k for k in range(1, 10) if apart % max(per_unit // 10**k, 1) == 0)
    return float(f"1e-{decimals}")


def _ends(x: Numbers, step: float) -> Arguments:
    """Bounds where dates do not decay towards the first or the last of them.

    As much is left free as would hold some more rows: the next one could be there.
    """
    found: Arguments = {}
    for key, end, side in (("low", x.min(), -1), ("high", x.max(), 1)) if len(x) >= ROWS else ():
        unseen, apart = rows_beyond(x, end, step)
        if unseen >= UNSEEN_ANYWHERE:
            found[key] = float(end + side * step * int(UNSEEN_ANYWHERE * apart / step))
    return found


def _told(kind: pa.DataType) -> pa.DataType:
    """The finest type like this one that Python's own can hold."""
    return type_of(str(kind).replace("[ns", "[us"))


def _since(name: str, key: str, text: str, kind: pa.DataType, origin: float) -> float:
    """A date, a time or a moment that is written in ISO 8601, as a number since the origin."""
    read = dt.time if pa.types.is_time(kind) else dt.datetime
    try:
        cells = pa.chunked_array([pa.array([read.fromisoformat(text)]).cast(kind)])
    except (ValueError, TypeError, pa.ArrowException):
        wanted = f"expected a {kind} such as {_EXAMPLES[read]}, or a number since the origin"
        raise ValueError(f"column {name!r}: {key}: {wanted}, got {text!r}") from None
    per_unit = ticks_per_unit(kind)
    count = ticks(name, kind, cells)[0].as_py()
    return float((count - round(origin * per_unit)) / per_unit)
