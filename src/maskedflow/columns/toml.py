"""A schema as a TOML document, complete or with just what its author knows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, with_config
from typing_extensions import TypedDict

from maskedflow.files import CLOSED, check, parse_toml
from maskedflow.sources.arrow_types import type_of

from .column import KINDS, Column, Level

_HEADER = "# The schema of a table. Leave out what is to be inferred.\n\n"


def _kind(kind: str) -> str:
    kinds = (*KINDS, "integer")
    if kind not in kinds:
        raise ValueError(f"expected one of {', '.join(kinds)}, got {kind!r:.60}")
    return kind


def _bound(bound: Any) -> Any:
    """A number, or how a date is written; which of these, the column knows."""
    if isinstance(bound, bool) or not isinstance(bound, int | float | str):
        raise ValueError(f"expected a number or a date, got {bound!r:.60}")
    return bound


def _levels(levels: tuple[Any, ...]) -> tuple[Any, ...]:
    for kind in (str, bool, int | float):
        if all(isinstance(level, kind) for level in levels):
            return levels
    raise ValueError(f"expected all strings or all numbers, got {list(levels)!r:.60}")


@with_config(CLOSED)
class _Document(TypedDict):
    missing: Literal["error", "drop", "model"] | None


@with_config(CLOSED)
class _Arguments(TypedDict, total=False):
    """Arguments of `Column` but for its name, all plain but the type."""

    kind: Annotated[str, AfterValidator(_kind)]
    type: Annotated[str, AfterValidator(type_of)]
    low: Annotated[Any, AfterValidator(_bound)]
    high: Annotated[Any, AfterValidator(_bound)]
    step: float
    unit: float
    origin: float
    period: float
    levels: Annotated[tuple[Any, ...], AfterValidator(_levels)]
    atoms: tuple[float, ...]
    missing: bool
    of: str
    value: Level
    note: str


def write_document(columns: Iterable[Column], missing: str) -> str:
    """The text of columns, without what is plain from their kind."""
    return _HEADER + tomli_w.dumps(
        {"missing": missing, "columns": {column.name: _arguments(column) for column in columns}}
    )


def _arguments(column: Column) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for field in fields(Column):
        value = column.as_written(field.name)
        if field.name == "type":
            arguments["type"] = str(value)
        elif field.name != "name" and (field.name in column.written or value != field.default):
            arguments[field.name] = list(value) if isinstance(value, tuple) else value
    return arguments


def read_document(
    text: str,
) -> tuple[Literal["error", "drop", "model"] | None, dict[str, dict[str, Any]]]:
    r"""Reads the text of a schema: what is done about missing values, and arguments of `Column`.

    The arguments are by the name of the column; the kind may also be `integer`.

    Raises:
        ValueError: If it is no TOML, or something in it is unknown or of the wrong type.

    Example:
        >>> read_document('[columns.income]\nkind = "positive"')
        (None, {'income': {'kind': 'positive'}})
    """
    document = parse_toml(text)
    for key in document:
        if key not in ("missing", "columns"):
            raise ValueError(f"schema: expected 'missing' and 'columns', found {key!r}")
    found = check(_Document, {"missing": document.get("missing")})
    columns = document.get("columns", {})
    if not isinstance(columns, dict):
        raise ValueError(f"columns: expected a section for each column, found {columns!r:.60}")
    return found["missing"], {name: read_arguments(name, given) for name, given in columns.items()}


def read_arguments(name: str, given: Any) -> dict[str, Any]:
    """Arguments of `Column` from plain values."""
    if not isinstance(given, Mapping):
        raise ValueError(f"column {name!r}: expected a section of settings, found {given!r:.60}")
    known = _Arguments.__annotations__
    for key in given:
        if key not in known:
            raise ValueError(f"column {name!r}: expected {', '.join(known)}, found {key!r}")
    plain = {key: str(value) if key == "type" else value for key, value in given.items()}
    for key, value in plain.items():
        if isinstance(value, dt.date | dt.time):
            plain[key] = value.isoformat()
    try:
        return {**check(_Arguments, plain)}
    except ValueError as error:
        raise ValueError(f"column {name!r}: {error}") from None
