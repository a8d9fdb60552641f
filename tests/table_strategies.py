"""Tables with columns of every kind, drawn by hypothesis."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

Cells = st.SearchStrategy[Any]

REALS = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: x + 0.0)
SINGLES = st.floats(-1e6, 1e6, width=32, allow_subnormal=False).map(lambda x: x + 0.0)
DAYS = st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1))
MOMENTS = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2050, 1, 1))

#: For each column its cells, their Arrow type, and what is declared of it.
COLUMNS: dict[str, tuple[Cells, pa.DataType, dict[str, Any]]] = {
    "real": (REALS, pa.float64(), {}),
    "single": (SINGLES, pa.float32(), {}),
    "tenths": (st.integers(-900, 900).map(lambda k: k / 10), pa.float64(), {}),
    "single_hundredths": (st.integers(-900, 900).map(lambda k: k / 100), pa.float32(), {}),
    "count": (st.integers(0, 90), pa.int32(), {}),
    "byte": (st.integers(0, 255), pa.uint8(), {}),
    "large": (st.integers(-(2**50), 2**50), pa.int64(), {}),
    "fifties": (st.integers(0, 40).map(lambda k: 50 * k), pa.int64(), {"step": 50}),
    "cents": (st.decimals(-999, 999, places=2), pa.decimal128(10, 2), {}),
    "spiked": (st.just(0.0) | st.floats(0, 10, allow_subnormal=False), pa.float64(), {"low": 0}),
    "share": (st.floats(0, 1, allow_subnormal=False), pa.float64(), {"kind": "bounded"}),
    "percent": (st.integers(0, 100), pa.int64(), {"low": 0, "high": 100, "kind": "integer"}),
    "word": (st.sampled_from(["", "a", "é", "long word"]), pa.string(), {}),
    "large_word": (st.sampled_from("abc"), pa.large_string(), {}),
    "coded": (st.sampled_from("abc"), pa.dictionary(pa.int8(), pa.string()), {}),
    "ordered": (st.sampled_from("abc"), pa.dictionary(pa.int16(), pa.string(), True), {}),
    "class": (st.integers(0, 9), pa.int64(), {"kind": "categorical"}),
    "grade": (st.integers(1, 4), pa.float64(), {"kind": "ordinal", "levels": [4, 3, 2, 1]}),
    "flag": (st.booleans(), pa.bool_(), {}),
    "flag_number": (st.integers(0, 1), pa.int8(), {"kind": "boolean"}),
    "wind": (st.floats(0, 359.9), pa.float64(), {"kind": "angle", "period": 360}),
    "hour": (st.integers(0, 23), pa.int64(), {"period": 24}),
    "day": (DAYS, pa.date32(), {}),
    "day_in_milliseconds": (DAYS, pa.date64(), {}),
    "second": (MOMENTS.map(lambda t: t.replace(microsecond=0)), pa.timestamp("ns"), {}),
    "moment": (MOMENTS, pa.timestamp("us", "UTC"), {}),
    "clock": (st.times(), pa.time64("us"), {}),
    "nothing": (st.none(), pa.float64(), {}),
    "always": (st.just(2.5), pa.float64(), {}),
    "always_word": (st.just("w"), pa.dictionary(pa.int8(), pa.string()), {}),
    "always_day": (st.just(dt.date(2020, 2, 29)), pa.date32(), {}),
}


@st.composite
def tables(
    draw: Callable[[st.SearchStrategy[Any]], Any], missing: bool
) -> tuple[pa.Table, dict[str, dict[str, Any]]]:
    """A table with all these columns and copies of some, and what is declared of them."""
    n = draw(st.integers(1, 40))
    shared = draw(st.integers(1, 40))  # the most values of a column: many rows may have one
    columns = {}
    for name, (cells, kind, _) in COLUMNS.items():
        if name == "nothing" and not missing:
            continue
        pool = draw(st.lists(cells | st.none() if missing else cells, min_size=1, max_size=shared))
        pick = np.random.default_rng(draw(st.integers(0, 99))).integers(0, len(pool), n)
        columns[name] = (
            pa.array([pool[i] for i in pick], pa.string()).cast(kind)
            if (pa.types.is_dictionary(kind))
            else pa.array([pool[i] for i in pick], kind)
        )
    columns["count_again"] = columns["count"].cast(pa.float64())
    columns["word_again"] = columns["word"].cast(pa.large_string())
    columns["day_again"] = columns["day"]
    return pa.table(columns), {name: known for name, (_, _, known) in COLUMNS.items() if known}
