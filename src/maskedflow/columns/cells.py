"""The cells of a column as numbers, texts and ticks, which all kinds of columns are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskedflow.sources.arrow_types import is_category, is_number, is_temporal

LARGE = 2**53
"""Where doubles begin to skip whole numbers."""

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Cells:
    """What the n cells of one column come to, each array of shape `(n,)`."""

    code: NDArray[np.int64]  # the level, or the state of a number
    number: Numbers  # the value or the angle, 0 where there is none
    observed: Mask  # where there is a number
    impossible: Mask  # where the cell is something that this column cannot hold


def numbers(
    name: str, cells: pa.ChunkedArray, start: int = 0, kind: pa.DataType | None = None
) -> Numbers:
    """Cells as float64, rounded to what this type can hold; missing ones are NaN."""
    cells = _decoded(cells)
    found = cells.type
    if not (is_number(found) or pa.types.is_boolean(found) or pa.types.is_null(found)):
        raise ValueError(f"column {name!r}: expected numbers, found type {found}")
    told = cells
    if kind is not None and pa.types.is_floating(kind):
        cells = cells.cast(kind, safe=False)
    x: Numbers = cells.cast(pa.float64(), safe=False).to_numpy()
    for decimal in (found, kind):
        if decimal is not None and pa.types.is_decimal(decimal):  # Arrow rounds them badly
            x = np.round(x, decimal.scale)
    with np.errstate(invalid="ignore"):
        wrong = np.isinf(x) if pa.types.is_floating(found) else np.abs(x) >= LARGE
    if wrong.any():
        row = int(wrong.argmax())
        infinite = f"expected a finite number, found {x[row]:g}"
        reason = infinite if pa.types.is_floating(found) else too_large(told[row].as_py())
        raise ValueError(f"column {name!r}, row {start + row + 1}: {reason}")
    return x


def too_large(value: Any) -> str:
    """What is wrong with a whole number that float64 cannot hold."""
    return (
        f"expected an integer below 2^53 in size, which a double can hold, found {value}; leave "
        "a column of names out, or make it text"
    )


def ticks(name: str, kind: pa.DataType, cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dates or times as the integers that this type of theirs is stored as, int64.

    What time it is without a zone is not known with one, nor the other way round.
    """
    both_moments = pa.types.is_timestamp(kind) and pa.types.is_timestamp(cells.type)
    try:
        if both_moments and (kind.tz is None) != (cells.type.tz is None):
            raise pa.ArrowInvalid("a time zone")
        cells = cells.cast(kind, safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ValueError(f"column {name!r}: expected type {kind}, found {cells.type}") from None
    return cells.cast(_stored(kind)).cast(pa.int64())


def from_ticks(kind: pa.DataType, count: pa.Array) -> pa.Array:
    """Dates or times of this type from the integers that they are stored as."""
    return count.cast(_stored(kind), safe=False).cast(kind)


def _stored(kind: pa.DataType) -> pa.DataType:
    return pa.int32() if kind.bit_width == 32 else pa.int64()


def is_missing(cells: pa.ChunkedArray) -> Mask:
    """Which cells are null or NaN."""
    return np.asarray(cells.is_null(nan_is_null=True))


def plain(name: str, kind: pa.DataType, cells: pa.ChunkedArray, start: int = 0) -> pa.ChunkedArray:
    """Cells of a column of this type as strings, float64 or ticks, which can be compared."""
    if is_temporal(kind):
        return ticks(name, kind, cells)
    if is_number(kind) or pa.types.is_boolean(kind):
        x = numbers(name, cells, start, kind)
        return pa.chunked_array([pa.array(x, from_pandas=True)])
    return strings(name, cells)


def equal(cells: pa.ChunkedArray, others: pa.ChunkedArray | pa.Scalar) -> Mask:
    """Where two plain columns, or a column and a scalar, are the same; a missing cell is itself."""
    both_missing = pc.and_(pc.is_null(cells), pc.is_null(others))
    return np.asarray(pc.or_(pc.equal(cells, others).fill_null(False), both_missing))


def _decoded(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    return cells.cast(cells.type.value_type) if pa.types.is_dictionary(cells.type) else cells


def strings(name: str, cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cells as text."""
    cells = _decoded(cells)
    kind = cells.type
    if not (is_category(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise ValueError(f"column {name!r}: expected strings, found type {kind}")
    return cells.cast(pa.string())


def number_cells(kind: pa.DataType, x: Numbers, present: Mask | None = None) -> pa.Array:
    """Numbers as cells of this type, null where none is present, and within its range."""
    absent = None if present is None else ~present
    if pa.types.is_decimal(kind):
        # The largest number of so many digits, and as a float no larger.
        whole = 10.0 ** (kind.precision - kind.scale)
        most = min(whole - 10.0**-kind.scale, np.nextafter(whole, 0.0), LARGE - 1.0)
        return pa.array(np.clip(x, -most, most), mask=absent).cast(kind)
    dtype = kind.to_pandas_dtype()
    if pa.types.is_integer(kind):
        limits = np.iinfo(dtype)
        # Larger ones are no longer told apart as floats, and are refused when they are read.
        x = np.clip(np.rint(x), max(limits.min, 1 - LARGE), min(limits.max, LARGE - 1))
    elif pa.types.is_floating(kind):
        x = np.clip(x, np.finfo(dtype).min, np.finfo(dtype).max)
    return pa.array(x.astype(dtype), mask=absent)
