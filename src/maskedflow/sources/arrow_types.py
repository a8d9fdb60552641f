"""Arrow's types: which are numbers, categories or times, and their names in a file."""

from __future__ import annotations

import re

import pyarrow as pa

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def is_number(kind: pa.DataType) -> bool:
    """Whether cells of this type are integers, floats or decimals."""
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether cells of this type are strings."""
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_category(kind: pa.DataType) -> bool:
    """Whether cells of this type are strings, or are stored as a dictionary."""
    return is_text(kind) or bool(pa.types.is_dictionary(kind))


def is_temporal(kind: pa.DataType) -> bool:
    """Whether cells of this type are dates, times of the day, moments or durations."""
    return bool(pa.types.is_temporal(kind) and not pa.types.is_interval(kind))


def ticks_per_unit(kind: pa.DataType) -> int:
    """The number of ticks, the integers that a temporal type is stored as, in a day or second."""
    if pa.types.is_date32(kind):
        return 1
    return 86_400_000 if pa.types.is_date64(kind) else _PER_SECOND[kind.unit]


def parsing_type(kind: pa.DataType) -> pa.DataType:
    """The type to read from a text file for a column that is given back in this one."""
    if pa.types.is_dictionary(kind):
        return parsing_type(kind.value_type)
    if is_number(kind):
        return pa.float64()
    return kind if is_temporal(kind) or pa.types.is_boolean(kind) else pa.string()


def type_of(name: str) -> pa.DataType:
    """The type that prints like this, or a ValueError.

    Example:
        >>> type_of("timestamp[us, tz=UTC]")
        TimestampType(timestamp[us, tz=UTC])
    """
    try:
        if match := re.fullmatch(r"dictionary<values=(.+), indices=(\w+), ordered=([01])>", name):
            values, indices, ordered = match.groups()
            return pa.dictionary(type_of(indices), type_of(values), ordered == "1")
        if match := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", name):
            return pa.timestamp(*match.groups())
        if match := re.fullmatch(r"(decimal\d+)\((\d+), (-?\d+)\)", name):
            kind, precision, scale = match.groups()
            return getattr(pa, kind)(int(precision), int(scale))
        return pa.type_for_alias(name)
    except (AttributeError, ValueError):
        raise ValueError(
            f"expected the name of an Arrow type such as 'double', got {name!r:.60}"
        ) from None
