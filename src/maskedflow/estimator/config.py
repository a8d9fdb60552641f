"""`config.toml` of a run on a mixed table."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from maskedflow.data import write_text
from maskedflow.data.split import Dealing
from maskedflow.runs.config import read_record, versions

__all__ = ["TableConfig"]

_HEADER = """\
# A run of maskedflow on a mixed table, whose schema is beside it.
# `maskedflow train --config` this file fits it again.

"""

_SECTION = "table"


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
        >>> config = TableConfig("people", {"data": "people.csv"}, ("age",), (90, 10))
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
            KeyError: If something is not there.
            TypeError: If something is of another type.
            ValueError: If it is no TOML.
        """
        document = tomllib.loads(text)
        table = document[_SECTION]
        fitted, held_out = table["rows"]
        return cls(
            name=document["name"],
            options=document["options"],
            columns=tuple(table["columns"]),
            rows=(fitted, held_out),
            context_columns=tuple(table["context_columns"]),
            dealing=table.get("dealing", "rows"),
            distinct=table.get("distinct"),
            seconds=table["seconds"],
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
        return read_record(path, cls.from_toml, "a run on a table")

    @staticmethod
    def is_at(path: Path) -> bool:
        """Whether this is the record of such a run, and not of a flow's."""
        try:
            return _SECTION in tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            return False
