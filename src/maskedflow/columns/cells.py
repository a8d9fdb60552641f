"""The cells of one column to codes and numbers, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .column import CODES, Column
from .types import is_category, is_number, is_temporal, ticks_per_unit

__all__ = [
    "LARGE",
    "Cells",
    "dates",
    "decode",
    "encode",
    "equal",
    "is_missing",
    "numbers",
    "plain",
    "ticks",
    "too_large",
]

LARGE = 2**53
"""Where doubles begin to skip whole numbers."""

_YEAR_1, _YEAR_10000 = -719_162, 2_932_897
"""The first days of these years, counted from 1970."""

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Cells:
    """What the n cells of one column come to, each array of shape `(n,)`.

    Args:
        code: The level, or the state of a number, int64.
        number: The value or the angle, 0 where there is none, float64.
        observed: Where there is a number.
        impossible: Where the cell is something that this column cannot hold.
    """

    code: NDArray[np.int64]
    number: Numbers
    observed: Mask
    impossible: Mask


def encode(column: Column, cells: pa.ChunkedArray, start: int = 0, *, strict: bool = True) -> Cells:
    """Turns cells into codes and numbers; `decode` is the way back.

    Args:
        column: What is known of the column; neither constant nor a duplicate.
        cells: Its cells, of any type that can be read as what the column is.
        start: The number of rows before these, for errors.
        strict: Whether a number must be on the grid, within the bounds and, if levels are numbers,
            one of these. If not, one on no grid lies between cells, and one that is no level has
            the code of one.

    Raises:
        ValueError: If the type of the cells does not fit, or a number is infinite.
    """
    if column.kind in CODES:
        return _levels(column, cells, start, strict)
    if column.kind == "date":
        x = dates(column, cells)
    else:
        rounded = strict or pa.types.is_floating(column.type)
        x = numbers(column.name, cells, start, column.type if rounded else None)
    missing = np.isnan(x)
    code = missing.astype(np.int64)
    for i, atom in enumerate(column.atoms):
        code[x == atom] = column.missing + 1 + i
    observed = code == 0
    x = np.where(observed, x, 0.0)
    impossible = missing & (not column.missing)
    if column.kind == "angle":
        x = np.where(observed, _radians(x, column.period or math.inf), 0.0)
    elif grid := column.grid:
        cell, off = grid.cells(x)
        if strict:
            impossible |= off & observed
        else:
            cell = np.where(off, grid.places(x), cell)
        x = np.where(observed, cell * column.step, 0.0)
    elif strict:
        outside = np.zeros(len(x), np.bool_)
        if column.low is not None:
            outside |= x <= column.low
        if column.high is not None:
            outside |= x >= column.high
        impossible |= outside & observed
    # A number that is impossible is taken for one that is not: all that counts is its mask.
    x = np.where(impossible, column.inner, x)
    return Cells(np.where(impossible, 0, code), x, observed | impossible, impossible)


def _levels(column: Column, cells: pa.ChunkedArray, start: int, strict: bool) -> Cells:
    if isinstance(column.levels[0], str):
        values = _strings(column.name, cells)
        levels = pa.array(column.levels, pa.string())
        index = pc.index_in(values, value_set=levels).fill_null(-1).to_numpy().astype(np.int64)
        missing = values.is_null().to_numpy()
    else:
        x = numbers(column.name, cells, start, column.type)
        known = np.asarray(column.levels, np.float64)
        order = np.argsort(known)
        place = order[np.searchsorted(known[order], x).clip(max=len(known) - 1)]
        missing = np.isnan(x)
        index = np.where((known[place] == x) | (~missing & (not strict)), place, -1)
    if column.missing:
        index = np.where(missing, len(column.levels), index)
    none = np.zeros(len(index))
    return Cells(index.clip(min=0), none, none.astype(np.bool_), index < 0)


def decode(column: Column, code: NDArray[Any], number: NDArray[Any]) -> pa.Array:
    """Turns codes and numbers into cells of the column's type, missing ones into null.

    Numbers on a grid may lie anywhere in their cell, [v, v + step) for the number v.
    """
    if column.kind in CODES:
        return _level_cells(column, code)
    present = ~((code == 1) & column.missing)
    if column.kind == "angle" and column.period:
        turn = number / (2 * math.pi) * column.period
        start = column.low or 0.0
        x = start + np.mod(turn - start, column.period)
        x = np.where(x >= start + column.period, start, x)  # a tiny negative turn rounds up
    elif grid := column.grid:
        cell, nearest = number / column.step, np.rint(number / column.step)
        at = np.abs(cell - nearest) <= 1e-6 + 2.0**-51 * np.abs(cell)
        x = grid.numbers(np.where(at, nearest, np.floor(cell)))
    else:
        x = _inside(column, number)
    for i, atom in enumerate(column.atoms):
        x = np.where(code == column.missing + 1 + i, atom, x)
    if column.kind == "date":
        return _date_cells(column, x, present)
    return _number_cells(column.type, x, present)


def numbers(
    name: str, cells: pa.ChunkedArray, start: int = 0, kind: pa.DataType | None = None
) -> Numbers:
    """Cells as float64, rounded to what this type can hold; missing ones are NaN.

    Raises:
        ValueError: If they are no numbers, or one of them is infinite or a whole number, also one
            with decimals, that float64 cannot hold.
    """
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

    Raises:
        ValueError: If the cells are none.
    """
    try:
        cells = cells.cast(kind, safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ValueError(f"column {name!r}: expected type {kind}, found {cells.type}") from None
    return cells.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(pa.int64())


def dates(column: Column, cells: pa.ChunkedArray) -> Numbers:
    """Dates or times as numbers, in days or seconds since the origin; missing ones as NaN."""
    per_unit = ticks_per_unit(column.type)
    count = ticks(column.name, column.type, cells)
    since = count.fill_null(0).to_numpy() - round(column.origin * per_unit)
    return np.where(count.is_null().to_numpy(), np.nan, since / per_unit)


def is_missing(cells: pa.ChunkedArray) -> Mask:
    """Which cells are null or NaN."""
    missing: Mask = cells.is_null(nan_is_null=True).to_numpy()
    return missing


def plain(name: str, kind: pa.DataType, cells: pa.ChunkedArray, start: int = 0) -> pa.ChunkedArray:
    """Cells of a column of this type as strings, float64 or ticks, which can be compared.

    Raises:
        ValueError: If the cells cannot be read as this type.
    """
    if is_temporal(kind):
        return ticks(name, kind, cells)
    if is_number(kind) or pa.types.is_boolean(kind):
        x = numbers(name, cells, start, kind)
        return pa.chunked_array([pa.array(x, from_pandas=True)])
    return _strings(name, cells)


def equal(cells: pa.ChunkedArray, others: pa.ChunkedArray | pa.Scalar) -> Mask:
    """Where two plain columns, or a column and a scalar, are the same; a missing cell is itself."""
    same = pc.equal(cells, others).fill_null(False).to_numpy()
    if isinstance(others, pa.Scalar):
        both = cells.is_null().to_numpy() & (not others.is_valid)
    else:
        both = cells.is_null().to_numpy() & others.is_null().to_numpy()
    result: Mask = same | both
    return result


def _decoded(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    return cells.cast(cells.type.value_type) if pa.types.is_dictionary(cells.type) else cells


def _strings(name: str, cells: pa.ChunkedArray) -> pa.ChunkedArray:
    cells = _decoded(cells)
    kind = cells.type
    if not (is_category(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise ValueError(f"column {name!r}: expected strings, found type {kind}")
    return cells.cast(pa.string())


def _radians(x: Numbers, period: float) -> Numbers:
    turn = x / period
    turn = turn - np.floor(turn + 0.5)
    return np.where(turn >= 0.5, -0.5, turn) * (2 * math.pi)


def _level_cells(column: Column, code: NDArray[Any]) -> pa.Array:
    kind = column.type
    missing = code == len(column.levels)
    indices = pa.array(np.where(missing, 0, code), mask=missing)
    if isinstance(column.levels[0], str):
        levels = pa.array(column.levels, pa.string())
    elif pa.types.is_boolean(kind):
        levels = pa.array([bool(level) for level in column.levels])
    elif is_number(kind):
        levels = _number_cells(kind, np.asarray(column.levels, np.float64))
    else:
        levels = pa.array(column.levels)
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(
            indices.cast(kind.index_type), levels.cast(kind.value_type), ordered=kind.ordered
        )
    return levels.take(indices).cast(kind)


def _inside(column: Column, x: Numbers) -> Numbers:
    """Rounds numbers to the column's type, and none of them onto its bounds or beyond."""
    kind = column.type
    if pa.types.is_floating(kind):
        dtype = kind.to_pandas_dtype()
        least, most = dtype(-np.inf), dtype(np.inf)
        if column.low is not None:
            least = dtype(column.low)
            least = np.nextafter(least, most) if least <= column.low else least
        if column.high is not None:
            most = dtype(column.high)
            most = np.nextafter(most, -np.inf, dtype=dtype) if most >= column.high else most
        finite = np.clip(x, np.finfo(dtype).min, np.finfo(dtype).max).astype(dtype)
        inside: Numbers = np.clip(finite, least, most).astype(np.float64)
        return inside
    least = -np.inf if column.low is None else math.floor(column.low) + 1
    most = np.inf if column.high is None else math.ceil(column.high) - 1
    return np.clip(np.rint(x), least, most) if pa.types.is_integer(kind) else x


def _number_cells(kind: pa.DataType, x: Numbers, present: Mask | None = None) -> pa.Array:
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


def _date_cells(column: Column, x: Numbers, present: Mask) -> pa.Array:
    kind = column.type
    per_unit = ticks_per_unit(kind)
    count = np.rint(x * per_unit) + round(column.origin * per_unit)
    if pa.types.is_time(kind):  # a day has no second before its first one
        count = np.clip(count, 0, 86_400 * per_unit - 1)
    # Of a draw from far away, the last moment that the type, and a calendar, can tell.
    limit = 2.0 ** (kind.bit_width - 1)
    most = np.nextafter(limit, 0.0) if kind.bit_width == 64 else limit - 1
    # The least integer of 64 bits is no time in NumPy, and Arrow parses text by whole seconds.
    least = -(most // per_unit) * per_unit
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        day = per_unit if pa.types.is_date(kind) else 86_400 * per_unit
        # A whole second, or day, before the end: floats of so many ticks skip some.
        least, most = max(least, _YEAR_1 * day), min(most, _YEAR_10000 * day - per_unit)
    count = np.clip(count, least, most)
    width = pa.int32() if kind.bit_width == 32 else pa.int64()
    return pa.array(count.astype(np.int64), mask=~present).cast(width, safe=False).cast(kind)
