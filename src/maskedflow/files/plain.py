"""Plain data: read from what may be no file, parsed, and checked before anything is made of it."""

from __future__ import annotations

import json
import os
import re
import reprlib
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar, cast, get_type_hints

from annotated_types import Gt, Interval, Len
from pydantic import AllowInfNan, ConfigDict, StringConstraints, TypeAdapter, ValidationError

Size = Annotated[int, Interval(ge=1, le=2**31)]
"""How many there are of something that cannot be missing."""

Count = Annotated[int, Interval(ge=0, le=2**62)]
"""How many there are, or a seed."""

Finite = Annotated[float, AllowInfNan(False)]

Positive = Annotated[Finite, Gt(0)]

Name = Annotated[str, Len(max_length=10_000)]

Stem = Annotated[str, StringConstraints(pattern=r"\A[^/\x00]+\z", max_length=255)]
"""What files may be named after."""

CLOSED = ConfigDict(extra="forbid")
"""The `__pydantic_config__` of a record without other keys than its own."""

DEPTH = 100
"""Tables within tables that a dotted key may name."""

MOST = 2**22
"""Bytes of the longest text that is read."""

_T = TypeVar("_T")


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, if it is one: a pipe or a device could be read without end.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is something else, or a link to something else.

    Example:
        >>> open_regular(Path("/dev/null"))
        Traceback (most recent call last):
        ...
        ValueError: /dev/null: expected a regular file
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a device may do something already
            raise ValueError(f"{path}: expected a regular file")
        file = os.fdopen(os.open(path, flags), "rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError(f"{path}: expected a regular file")
    return file


def read_text(path: Path, most: int = MOST) -> str:
    """Reads a text in UTF-8, of at most so many bytes.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no regular file, too long, or no text.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path}: expected a text of at most {most:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8: {error}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Parses TOML.

    Raises:
        ValueError: If it is none, or nested too deeply.
    """
    # A dotted key is a table for each dot, which take time and memory with their square.
    if any(part.count(".") > DEPTH for part in re.split(r"[=,\[\]{}\n]", text)):
        raise ValueError("nested too deeply")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_json(text: str | bytes) -> Any:
    """Parses JSON.

    Raises:
        ValueError: If it is none, nested too deeply, or names something twice.

    Example:
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ...
        ValueError: names 'a' twice
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"names {reprlib.repr(key)} twice")
        found[key] = value
    return found


def check(schema: type[_T], values: Any) -> _T:
    """Checks plain values against a schema, and makes one of it.

    Types are strict: a text is no number, and a number no text.

    The schema is a dataclass or a `TypedDict` whose annotations say types and bounds.

    Raises:
        ValueError: If they are not of the schema; the message names the first that is not.

    Example:
        >>> check(dict[str, Size], {"hidden": 64})
        {'hidden': 64}
        >>> check(dict[str, Size], {"hidden": "64"})
        Traceback (most recent call last):
        ...
        ValueError: hidden: expected an integer, got '64'
    """
    try:
        # As JSON, whose lists may become tuples and whose objects may become dataclasses.
        adapter = _adapter(cast(Any, schema))
        found: _T = adapter.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ValueError(_line(error)) from None
    except (TypeError, RecursionError) as error:
        raise ValueError(f"expected plain values: {error}") from None
    return found


def check_fields(record: Any) -> None:
    """Checks the fields of a dataclass against their annotations, as strictly as :func:`check`.

    Raises:
        ValueError: If one is not of its type, or out of its bounds; the message names it.
    """
    hints = get_type_hints(type(record), include_extras=True)
    for field in fields(record):
        try:
            adapter = _adapter(hints[field.name])
            adapter.validate_python(getattr(record, field.name), strict=True)
        except ValidationError as error:
            raise ValueError(f"{field.name}: {_line(error)}") from None


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


_WORDS = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_type": "a number",
    "int_type": "an integer",
    "list_type": "a list",
    "string_type": "text",
    "tuple_type": "a list",
}


def _line(error: ValidationError) -> str:
    """The first thing that is wrong, in the words of this library's errors."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = "".join(f"{part}." for part in first["loc"]).rstrip(".")
    place = f"{place}: " if place else ""
    match first["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"{place}unknown"
        case "missing" | "missing_argument":
            return f"{place}missing"
        case "value_error":
            return place + first["msg"].removeprefix("Value error, ")
    said = first["msg"].removeprefix("Input should be ").removeprefix("Input should ")
    said = "a positive number" if said == "greater than 0" else said
    wanted = _WORDS.get(first["type"], said.replace("greater than or equal to", "at least"))
    return f"{place:.200}expected {wanted:.200}, got {reprlib.repr(first['input'])}"


@contextmanager
def blame(path: Path, claim: str) -> Iterator[None]:
    """Turns what goes wrong with a file's content into one line: the file, and what it is not.

    Raises:
        ValueError: In place of any error but those of the operating system.

    Example:
        >>> with blame(Path("a.toml"), "not a record"):
        ...     {}["name"]
        Traceback (most recent call last):
        ...
        ValueError: a.toml: not a record: KeyError: 'name'
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        told = " ".join(str(error).split())
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise ValueError(f"{path}: {claim}: {kind}{told:.1000}") from None
