"""A schema as a TOML document, complete or with just what its author knows."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Literal, get_args

import tomli_w

from .column import FIXED, VALUES, Column, Kind
from .types import type_of

__all__ = ["read_arguments", "read_document", "write_document"]

_HEADER = "# The schema of a table. Leave out what is to be inferred.\n\n"

_NUMBERS = ("low", "high", "step", "origin", "period")


def write_document(columns: Iterable[Column], missing: str) -> str:
    """The text of columns, without what is plain from their kind."""
    return _HEADER + tomli_w.dumps(
        {"missing": missing, "columns": {column.name: _arguments(column) for column in columns}}
    )


def _arguments(column: Column) -> dict[str, Any]:
    kept = {"kind"}
    if column.kind in VALUES:
        kept |= {"step", "atoms"}
    if column.kind not in FIXED:
        kept |= {"missing"}
    arguments: dict[str, Any] = {}
    for field in fields(Column):
        value = getattr(column, field.name)
        if field.name == "type":
            arguments["type"] = str(value)
        elif field.name != "name" and (field.name in kept or value != field.default):
            arguments[field.name] = list(value) if isinstance(value, tuple) else value
    return arguments


def read_document(
    text: str,
) -> tuple[Literal["error", "drop", "model"] | None, dict[str, dict[str, Any]]]:
    r"""Reads the text of a schema.

    Returns:
        What is done about missing values, if the text says so, and what it says of each column by
        name: arguments of `Column`, and perhaps the kind `integer`.

    Raises:
        ValueError: If it is no TOML, or something in it is unknown or of the wrong type.

    Example:
        >>> read_document('[columns.income]\nkind = "positive"')
        (None, {'income': {'kind': 'positive'}})
    """
    document = tomllib.loads(text)
    for key in document:
        if key not in ("missing", "columns"):
            raise ValueError(f"schema: expected 'missing' and 'columns', found {key!r}")
    missing = document.get("missing")
    if missing not in (None, "error", "drop", "model"):
        raise ValueError(f"missing: expected 'error', 'drop' or 'model', got {missing!r}")
    columns = document.get("columns", {})
    if not isinstance(columns, dict):
        raise ValueError(f"columns: expected a section for each column, found {columns!r}")
    return missing, {name: read_arguments(name, given) for name, given in columns.items()}


def read_arguments(name: str, given: Any) -> dict[str, Any]:
    """Arguments of `Column` from plain values.

    Raises:
        ValueError: If one is unknown or of the wrong type; the message names the column.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"column {name!r}: expected a section of settings, found {given!r}")
    known = [field.name for field in fields(Column) if field.name != "name"]
    arguments: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"column {name!r}: expected {', '.join(known)}, found {key!r}")
        try:
            arguments[key] = _argument(key, value)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from None
    return arguments


def _argument(key: str, value: Any) -> Any:
    if key == "kind":
        if value not in (*get_args(Kind), "integer"):
            kinds = ", ".join((*get_args(Kind), "integer"))
            raise ValueError(f"kind: expected one of {kinds}, got {value!r}")
        return value
    if key == "type":
        return type_of(value) if isinstance(value, str) else value
    if key in _NUMBERS:
        return _number(key, value)
    if key == "atoms":
        return tuple(_number(key, atom) for atom in _list(key, value))
    if key == "levels":
        return _levels(value)
    if key == "missing" and not isinstance(value, bool):
        raise ValueError(f"missing: expected true or false, got {value!r}")
    if key in ("of", "note") and not isinstance(value, str):
        raise ValueError(f"{key}: expected text, got {value!r}")
    return value


def _number(key: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{key}: expected a number, got {value!r}")
    return float(value)


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key}: expected a list, got {value!r}")
    return list(value)


def _levels(value: Any) -> tuple[Any, ...]:
    levels = _list("levels", value)
    for kind in (str, bool, int | float):
        if all(isinstance(level, kind) for level in levels):
            return tuple(levels)
    raise ValueError(f"levels: expected all strings or all numbers, got {levels!r}")
