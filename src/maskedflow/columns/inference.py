"""What a column is, told from its cells and from what is given of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .cells import dates, encode, is_missing, numbers, plain, ticks
from .column import CODES, FIXED, VALUES, Column
from .numeric import FEW, guess_numbers, plain_numbers, range_of, specify_numbers
from .types import is_category, is_number, is_temporal, ticks_per_unit

__all__ = ["infer_column"]

Mask = NDArray[np.bool_]
Found = dict[str, Any]
Bounds = Literal["inferred", "data"]

MANY = 1000
"""The most levels of a categorical column."""

TIMES = (86_400, 43_200, 21_600, 10_800, 3600, 1800, 900, 600, 300, 60, 30, 15, 10, 5, 1)
"""Steps in which times are likely to be told, in seconds."""


def infer_column(
    name: str, cells: pa.ChunkedArray, given: Mapping[str, Any], bounds: Bounds = "inferred"
) -> Column:
    """Tells what a column is from its cells and from what is given of it.

    Args:
        name: Its name.
        cells: All its cells, at least one.
        given: Arguments of `Column` that are known; those left out are inferred. The kind may also
            be `integer`: a grid of step 1.
        bounds: Whether numbers are bounded where that is obvious, or by their range.

    Raises:
        ValueError: If the type is none that a density can be of, categories are too many, what is
            given does not fit together, or a cell contradicts it.

    Example:
        >>> cells = pa.chunked_array([[0.1, 0.2, None, 0.7]])
        >>> infer_column("size", cells, {"kind": "positive"}).summary
        'positive (above 0), may be missing'
    """
    missing = is_missing(cells)
    kind = given.get("kind") or _kind_by_arguments(given)
    found: Found = {"name": name, "type": cells.type, "missing": bool(missing.any())}
    if missing.all() and (kind is None or "type" not in given):  # nothing tells the rest
        return Column(name, "constant", cells.type, note="no row has a value")
    if kind is None:
        found |= _guess(name, cells, missing)
    else:
        kind = "discretised" if kind == "integer" else kind
        found |= {"kind": kind, "note": "declared"}
        found |= _specify(kind, name, cells, missing, given)
    if found["missing"] and not missing.all():
        found["note"] += f"; {100 * missing.mean():.2g}% missing"
    found |= {key: value for key, value in given.items() if key != "kind"}
    if found["kind"] in FIXED:
        found["missing"] = False
    column = Column(**found)
    if bounds == "data" and column.kind in VALUES and not missing.all():
        column = _within_range(column, cells, given)
    if given and column.kind not in FIXED:
        _check(column, cells)
    return column


def _within_range(column: Column, cells: pa.ChunkedArray, given: Mapping[str, Any]) -> Column:
    """The column with its range as bounds, where none are given."""
    date = column.kind == "date"
    x = dates(column, cells) if date else numbers(column.name, cells, kind=column.type)
    x = x[~np.isnan(x)]
    found = range_of(x, column.step, column.atoms)
    found = {name: found[name] for name in ("low", "high") if name not in given}
    kind = column.kind if column.step else "bounded"
    return replace(column, **found, kind=kind) if x.min() < x.max() else column


def _kind_by_arguments(given: Mapping[str, Any]) -> str | None:
    """The kind that has such arguments, if they tell."""
    if "period" in given:
        return "angle"
    if "levels" in given:
        strings = any(isinstance(level, str) for level in given["levels"])
        return "categorical" if strings else "ordinal"
    if "high" in given:
        return "bounded"
    if "low" in given:
        return "positive"
    return "discretised" if given.get("step") else None


def _check(column: Column, cells: pa.ChunkedArray) -> None:
    """Refuses what its own cells contradict."""
    impossible = encode(column, cells).impossible
    if impossible.any():
        row = int(impossible.argmax())
        raise ValueError(
            f"column {column.name!r}, row {row + 1}: expected {column.summary}, "
            f"found {cells[row].as_py()!r}"
        )


def _guess(name: str, cells: pa.ChunkedArray, missing: Mask) -> Found:
    kind = cells.type
    if is_number(kind):
        return guess_numbers(numbers(name, cells)[~missing], kind, bool(missing.any()))
    if not (is_category(kind) or is_temporal(kind) or pa.types.is_boolean(kind)):
        raise ValueError(
            f"column {name!r}: expected numbers, strings, booleans or dates, found type {kind}; "
            "leave the column out"
        )
    if len(values := plain(name, kind, cells).unique()) == 1:
        note = "the same in all rows"
        return {"kind": "constant", "value": _python(values[0], kind), "note": note}
    if pa.types.is_boolean(kind):
        return {"kind": "boolean", "levels": (False, True), "note": "true or false"}
    if is_temporal(kind):
        return {"kind": "date", "note": str(kind)} | _dates(name, cells, {})
    ordered = pa.types.is_dictionary(kind) and kind.ordered
    levels = _levels(name, cells)
    if ordered:
        return {"kind": "ordinal", "levels": levels, "note": "ordered categories"}
    note = "categories" if pa.types.is_dictionary(kind) else "strings"
    return {"kind": "categorical", "levels": levels, "note": note}


def _specify(
    kind: str, name: str, cells: pa.ChunkedArray, missing: Mask, given: Mapping[str, Any]
) -> Found:
    """What else is to be known of a column whose kind is given."""
    if kind == "boolean":
        return {"levels": (False, True)}
    if kind in CODES:
        return {} if "levels" in given else {"levels": _levels(name, cells)}
    if kind == "constant":
        if "value" in given:
            return {}
        values = plain(name, cells.type, cells).unique()
        if len(values) > 1:
            raise ValueError(
                f"column {name!r}: expected the same in all rows, found {len(values):,} values"
            )
        return {"value": _python(values[0], cells.type)}
    if kind == "date" and is_temporal(cells.type):
        return _dates(name, cells, given)
    if kind == "angle" and is_number(cells.type) and "low" not in given:
        x = numbers(name, cells)[~missing]
        half = (given.get("period") or 0.0) / 2
        return {"low": -half if (x < 0).any() and (x <= half).all() else 0.0}
    if kind in VALUES and is_number(cells.type) and not missing.all():
        return specify_numbers(name, kind, numbers(name, cells)[~missing], cells.type, given)
    return {}


def _python(value: pa.Scalar, kind: pa.DataType) -> Any:
    """A plain value as it is written in a schema."""
    return bool(value.as_py()) if pa.types.is_boolean(kind) and value.is_valid else value.as_py()


def _levels(name: str, cells: pa.ChunkedArray) -> tuple[Any, ...]:
    """The levels that occur, in the order of an ordered dictionary or else ascending."""
    if is_category(cells.type):
        values = plain(name, cells.type, cells)
        levels = values.unique().drop_null().to_pylist()
    else:
        x = numbers(name, cells)
        levels = plain_numbers(np.unique(x[~np.isnan(x)]))
    rows = len(cells)
    if len(levels) > MANY or (len(levels) > FEW and 2 * len(levels) > rows):
        raise ValueError(
            f"column {name!r}: {len(levels):,} categories in {rows:,} rows are too many to have "
            "a probability each; leave the column out, or join the rare ones"
        )
    if pa.types.is_dictionary(cells.type) and cells.type.ordered:
        dictionary = cells.unify_dictionaries().chunk(0).dictionary.cast(pa.string()).to_pylist()
        return tuple(sorted(levels, key=dictionary.index))
    return tuple(sorted(levels))


def _dates(name: str, cells: pa.ChunkedArray, given: Mapping[str, Any]) -> Found:
    """The earliest as the origin, and the steps in which all are told."""
    kind = cells.type
    count = ticks(name, kind, cells).drop_null().to_numpy()
    if not len(count):
        return {}
    per_unit = ticks_per_unit(kind)
    origin = given.get("origin", int(count.min()) // per_unit)
    if pa.types.is_date(kind):
        return {"origin": float(origin), "step": 1.0}
    apart = int(np.gcd.reduce(count - round(origin * per_unit)))
    if apart % per_unit == 0:
        seconds = apart // per_unit
        return {"origin": float(origin), "step": float(next(t for t in TIMES if seconds % t == 0))}
    decimals = next(k for k in range(1, 10) if apart % max(per_unit // 10**k, 1) == 0)
    return {"origin": float(origin), "step": float(f"1e-{decimals}")}
