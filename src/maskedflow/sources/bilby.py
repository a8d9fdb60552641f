"""Results of bilby's, as plain JSON: no class that a file names is made, and no prior evaluated."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from maskedflow.files import open_regular, parse_json

from .arrays import ArraySource, Place, UnreadableError, one_line
from .source import Source

KEYS = "search_parameter_keys"
LOGS = ("log_likelihood", "log_prior")


def open_result(path: Path, file: Path, member: str) -> Source:
    """Opens a result's posterior, which is read whole."""
    with one_line(path, "a result of bilby's"):
        if member:
            raise UnreadableError(f"expected no {member!r} behind ::, a result has one posterior")
        with open_regular(file) as opened:
            result = parse_json(opened.read())
        frame = _field(_field(result, "posterior"), "content")
        if not isinstance(frame, dict) or not frame:
            raise UnreadableError(
                "expected a result of bilby's, with the columns of a 'posterior', found none"
            )
        columns = {name: pa.array(cells) for name, cells in frame.items() if _is_list(cells)}
        if len({len(cells) for cells in columns.values()}) > 1:
            raise UnreadableError("expected columns of equally many rows in its posterior")
        return source_of_posterior(path, columns, _field(result, KEYS), _field(result, "priors"))


def source_of_posterior(path: Path, columns: Mapping[str, Any], keys: Any, priors: Any) -> Source:
    """The table of a posterior: what was sampled are its columns, and the rest lies beside.

    Args:
        path: The file.
        columns: Arrays of equal length.
        keys: The names of the parameters that were sampled, if they are known.
        priors: Their priors as plain values.
    """
    if not columns:
        raise UnreadableError("expected columns of a posterior, found none")
    sampled = [name for name in (keys if _is_list(keys) else []) if name in columns]
    sampled = sampled or [name for name in columns if name not in LOGS]
    beside = [name for name in columns if name not in sampled]
    notes = []
    if beside:
        notes.append(
            f"what was not sampled is left out of the density of {path}: {', '.join(beside)}"
        )
    return ArraySource(
        path,
        columns,
        {name: Place(name) for name in (*sampled, *beside)},
        len(next(iter(columns.values()))),
        beside=beside,
        bounds=bounds_of(priors, sampled),
        notes=notes,
    )


def bounds_of(priors: Any, names: Collection[str]) -> dict[str, tuple[float, float]]:
    """The bounds of priors that are plain values; of what else is said there nothing is known.

    Example:
        >>> bounds_of({"m": {"kwargs": {"minimum": 1, "maximum": 5}}, "s": "Gaussian(0, 1)"}, "ms")
        {'m': (1.0, 5.0)}
    """
    found = {}
    for name in names:
        told = _field(_field(priors, name), "kwargs")
        low = _number(_field(told, "minimum"), -math.inf)
        high = _number(_field(told, "maximum"), math.inf)
        if low < high and (low, high) != (-math.inf, math.inf):
            found[name] = (low, high)
    return found


def _field(record: Any, name: str) -> Any:
    return record.get(name) if isinstance(record, dict) else None


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _number(value: Any, otherwise: float) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and not math.isnan(value) else otherwise
