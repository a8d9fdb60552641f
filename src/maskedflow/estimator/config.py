"""`config.toml` of a run on a mixed table."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

import tomli_w
from pydantic import with_config
from typing_extensions import TypedDict

from maskedflow.data.split import Dealing
from maskedflow.files import (
    CLOSED,
    Count,
    Finite,
    Name,
    Stem,
    blame,
    check,
    parse_toml,
    read_text,
    write_text,
)
from maskedflow.runs.config import read_record, versions

__all__ = ["TableConfig"]

_HEADER = """\
# A run of maskedflow on a mixed table, whose schema is beside it.
# `maskedflow train --config` this file fits it again.

"""

_SECTION = "table"


@with_config(extra="allow")
class _Options(TypedDict):
    """The options of `maskedflow train` that are read again."""

    data: Name
    flow: Name
    time_limit: NotRequired[Finite]
    work: NotRequired[Finite]
    seed: Count


@with_config(CLOSED)
class _Table(TypedDict):
    columns: tuple[Name, ...]
    context_columns: tuple[Name, ...]
    rows: tuple[Count, Count]
    seconds: Finite
    dealing: NotRequired[Dealing]
    distinct: NotRequired[Count]


@with_config(CLOSED)
class _Document(TypedDict):
    """All of `config.toml`."""

    name: Stem
    options: _Options
    table: _Table
    versions: dict[str, str]


@dataclass(frozen=True)
class TableConfig:
    """What is recorded of a run on a mixed table.

    Args:
        name: The run's name, that of its folder.
        options: The options of `maskedflow train` that led to it.
        columns: The columns that have a density.
        rows: The number of rows that were fitted and of those that were held out.
        context_columns: The columns it is conditional on.
        dealing: "values" if copies of a row went to one side, "rows" if each was dealt by itself:
            where there are none, and by earlier versions.
        distinct: The number of rows that are no copies of another one, if there are copies.
        seconds: How long the fit took.
        versions: Versions of Python and of the libraries that matter for the numbers.

    Example:
        >>> options = {"data": "people.csv", "flow": "auto", "time_limit": 300.0, "seed": 0}
        >>> config = TableConfig("people", options, ("age",), (90, 10))
        >>> TableConfig.from_toml(config.to_toml()) == config
        True
    """

    name: str
    options: dict[str, Any]
    columns: tuple[str, ...]
    rows: tuple[int, int]
    context_columns: tuple[str, ...] = ()
    dealing: Dealing = "rows"
    distinct: int | None = None
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=versions)

    def to_toml(self) -> str:
        """The record as text."""
        table = {
            "columns": list(self.columns),
            "context_columns": list(self.context_columns),
            "rows": list(self.rows),
            "dealing": self.dealing,
            "seconds": self.seconds,
        }
        if self.distinct is not None:
            table["distinct"] = self.distinct
        options = {name: value for name, value in self.options.items() if value is not None}
        sections = {"options": options, _SECTION: table, "versions": self.versions}
        return _HEADER + tomli_w.dumps({"name": self.name, **sections})

    @classmethod
    def from_toml(cls, text: str) -> TableConfig:
        """Reads what `to_toml` wrote.

        Raises:
            ValueError: If it is no TOML, or something is missing, unknown, or not of its type.
        """
        document = check(_Document, parse_toml(text))
        return cls(
            name=document["name"],
            options={**document["options"]},
            **document["table"],
            versions=document["versions"],
        )

    def write(self, path: Path) -> None:
        """Writes `config.toml`, beside its place first and then moved into it."""
        write_text(path, self.to_toml())

    @classmethod
    def read(cls, path: Path) -> TableConfig:
        """Reads `config.toml`.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is not what `write` writes; the message names the file.
        """
        text = read_record(path)
        with blame(path, "not the record of a run on a table"):
            return cls.from_toml(text)

    @staticmethod
    def is_at(path: Path) -> bool:
        """Whether this is the record of such a run, and not of a flow's.

        Raises:
            ValueError: If it is no regular file, or no TOML.
        """
        if not path.exists():
            return False
        text = read_text(path)
        with blame(path, "not the record of a run"):
            return _SECTION in parse_toml(text)
