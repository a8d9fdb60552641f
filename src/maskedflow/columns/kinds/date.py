"""Columns of dates, times of the day, moments and durations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from maskedflow.columns.cells import Mask, Numbers, from_ticks, is_missing, ticks
from maskedflow.columns.column import Arguments
from maskedflow.columns.grid import Grid
from maskedflow.sources.arrow_types import is_temporal, ticks_per_unit, type_of

from .number import Value

TIMES = (86_400, 43_200, 21_600, 10_800, 3600, 1800, 900, 600, 300, 60, 30, 15, 10, 5, 1)
"""Steps in which times are likely to be told, in seconds."""

_DAY = 86_400

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
        apart = int(np.gcd.reduce(count - round(origin * per_unit)))
        if pa.types.is_date(kind):
            return found | {"step": 1.0}
        if apart % per_unit == 0:
            return found | {"step": float(next(t for t in TIMES if apart // per_unit % t == 0))}
        decimals = next(k for k in range(1, 10) if apart % max(per_unit // 10**k, 1) == 0)
        return found | {"step": float(f"1e-{decimals}")}

    @property
    def headline(self) -> str:
        return f"date in {'days' if pa.types.is_date(self.type) else 'seconds'}"

    @property
    def grid(self) -> Grid | None:
        return Grid(self.step, 0.0, self.low, self.high, self.atoms) if self.step else None

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
        finest = type_of(str(self.type).replace("[ns", "[us"))  # which Python's own types can hold
        text = str(self.from_numbers(np.array([x])).cast(finest, safe=False)[0].as_py())
        return text.removesuffix(" 00:00:00") if self.step >= _DAY else text
