"""What is asked of a training, and whether it goes together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from maskedflow.sources import STDIN, Dialect
from maskedflow.tables import FLOWS

from .config import SearchConfig
from .settings import settle

__all__ = [
    "DIALECT",
    "check_flow",
    "dialect_of",
    "errors_of",
    "located",
    "names",
    "shaping",
    "why_search",
]

DIALECT = tuple(f.name for f in fields(Dialect))
"""The options that say how a CSV file is written."""

SEARCHED = (
    *("data", "schema", "context", "weights", "seed", *DIALECT),
    *(f.name for f in fields(SearchConfig)),
)
"""The options that a search takes; others shape a single flow or its training."""
ANY = ("resume", "out", "config", "report")
"""The options that say nothing of what is fitted."""


def why_search(asked: Mapping[str, Any]) -> str | None:
    """Which option asks for the search of a density; None if none does.

    Args:
        asked: The options that were said.

    Raises:
        ValueError: If an option asks for it and another does not go with it.
    """
    asking = ["--flow auto"] if asked.get("flow") == "auto" else []
    asking += [f"--{name}" for name in ("schema", "missing", "work") if name in asked]
    if not asking:
        return None
    if asked.get("data") is None:
        raise ValueError(f"{asking[0]}: expected --data FILE with it")
    if "error" in asked:
        raise ValueError(f"--error: not with {asking[0]}, whose density takes cells as exact")
    if others := shaping(asked):
        raise ValueError(
            f"{others[0]}: shapes a single flow or its training, and {asking[0]} searches a "
            "density, which sees to that itself; leave it out"
        )
    if asked.get("flow") not in (None, *FLOWS):
        raise ValueError(f"--flow {asked['flow']}: with {asking[0]}, expected {', '.join(FLOWS)}")
    return asking[0]


def shaping(asked: Mapping[str, Any]) -> list[str]:
    """The options that shape a single flow or its training."""
    return [f"--{name}" for name in asked if name not in (*SEARCHED, *ANY)]


def check_flow(asked: Mapping[str, Any]) -> None:
    """Refuses options that do not go with each other, or with what the rows are."""
    settings, errors = settle(asked), errors_of(asked)
    file, time = asked.get("data"), asked.get("time")
    if asked.get("weights") is not None and (file is None or time is not None):
        raise ValueError(
            f"--weights {asked['weights']}: expected --data FILE, no time series, with this column"
        )
    if asked.get("context") is not None and file is None:
        raise ValueError(f"--context {asked['context']}: expected --data FILE with these columns")
    if settings["labels"] and file is not None:
        raise ValueError("--labels: a table of your own has none; name columns with --context")
    _check_series(asked, settings)
    if errors and settings["batch_norm"]:
        raise ValueError("--batch_norm: its rows would be draws of --error; leave it out")


def names(context: str | None) -> tuple[str, ...]:
    """The columns that --context names."""
    return tuple(name.strip() for name in context.split(",")) if context else ()


def dialect_of(asked: Mapping[str, Any]) -> Dialect | None:
    """How --data is written, as far as that was said."""
    said = next((name for name in DIALECT if asked.get(name) is not None), None)
    if said and asked.get("data") is None:
        raise ValueError(f"--{said}: expected --data FILE with it")
    return Dialect.of(asked)


def located(path: Path | str | None) -> str | None:
    """A path from the root, as it is recorded; standard input stays what it is."""
    if path is None:
        return None
    return str(path if Path(path) == STDIN else Path(path).resolve())


def errors_of(asked: Mapping[str, Any]) -> dict[str, str]:
    """The columns of standard deviations that --error names, by the columns they belong to."""
    given = asked.get("error") or ()
    if given and asked.get("data") is None:
        raise ValueError(f"--error {given[0]}: expected --data FILE with these columns")
    errors: dict[str, str] = {}
    for text in given:
        name, equals, column = (part.strip() for part in text.partition("="))
        if not (name and equals and column):
            raise ValueError(f"--error {text}: expected COLUMN=COLUMN_OF_ITS_ERRORS")
        if name in errors:
            raise ValueError(f"--error {text}: {name} has errors already, those of {errors[name]}")
        errors[name] = column
    return errors


def _check_series(asked: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuses what does not go with a time series."""
    if asked.get("time") is None:
        if asked.get("window") is not None:
            raise ValueError(f"--window {asked['window']}: expected --time COLUMN with it")
        return
    if asked.get("data") is None:
        raise ValueError(f"--time {asked['time']}: expected --data FILE with this column")
    if asked.get("context") is not None:
        raise ValueError("--context: a time series is conditional on its past; leave it out")
    if settings["batch_norm"]:
        raise ValueError("--batch_norm: it would tell a step of later ones; leave it out")
    if settings["start"] != "identity":
        raise ValueError(f"--start {settings['start']}: not with --time; leave it out")
    if "error" in asked:
        raise ValueError("--error: not with --time, which takes steps as exact")
