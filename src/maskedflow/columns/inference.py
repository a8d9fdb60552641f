"""What a column is, told from its cells and from what is given of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa

from .cells import is_missing
from .column import KINDS, Arguments, Column

__all__ = ["infer_column"]

Bounds = Literal["inferred", "data"]


def infer_column(
    name: str, cells: pa.ChunkedArray, given: Mapping[str, Any], bounds: Bounds = "inferred"
) -> Column:
    """Tells what a column is from its cells and from arguments of `Column` that are known.

    The kind may also be given as `integer`: a grid of step 1.

    Raises:
        ValueError: If the type is none that a density can be of, categories are too many, what is
            given does not fit together, or a cell contradicts it.

    Example:
        >>> cells = pa.chunked_array([[0.1, 0.2, None, 0.7]])
        >>> infer_column("size", cells, {"kind": "positive"}).summary
        'positive (above 0), may be missing'
    """
    missing = is_missing(cells)
    given = dict(given)
    if given.get("kind") == "integer":
        given = {"step": 1.0, **given, "kind": "discretised"}
    elif "kind" not in given and (kind := _kind_by_arguments(given)):
        given["kind"] = kind
    if missing.all() and not ("kind" in given and "type" in given):  # nothing tells the rest
        return Column(name, "constant", cells.type, note="no row has a value")
    if "kind" in given:
        found = KINDS[given["kind"]].infer(name, cells, given) or {}
        found["note"] = "declared"
    else:
        found = _guess(name, cells)
    if missing.any() and not missing.all():
        found["note"] += f"; {100 * missing.mean():.2g}% missing"
    found = {"name": name, "type": cells.type, "missing": bool(missing.any())} | found | given
    if KINDS[found["kind"]].part is None:
        found["missing"] = False
    column = Column(**found)
    if bounds == "data" and column.part == "values":
        column = column.within_range(cells, given)
    if given and column.part is not None:
        _check(column, cells)
    return column


def _kind_by_arguments(given: Arguments) -> str | None:
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


def _guess(name: str, cells: pa.ChunkedArray) -> Arguments:
    """What the first kind says that recognises these cells; those made last are asked first."""
    for kind in reversed(KINDS):
        if found := KINDS[kind].infer(name, cells, {}):
            return found
    raise ValueError(
        f"column {name!r}: expected numbers, strings, booleans or dates, found type {cells.type}; "
        "leave the column out"
    )


def _check(column: Column, cells: pa.ChunkedArray) -> None:
    """Refuses what its own cells contradict."""
    impossible = column.encode(pa.table({column.name: cells})).impossible
    if impossible.any():
        row = int(impossible.argmax())
        raise ValueError(
            f"column {column.name!r}, row {row + 1}: expected {column.summary}, "
            f"found {cells[row].as_py()!r}"
        )
