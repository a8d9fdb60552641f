"""``config.toml``: everything needed to build a run's flow again, as plain text."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, NotRequired

import tomli_w
from annotated_types import Len
from pydantic import with_config
from typing_extensions import TypedDict

from maskedflow.columns.schema import Missing
from maskedflow.data.dealing import Dealing
from maskedflow.files import (
    CLOSED,
    Count,
    Finite,
    Name,
    Size,
    Stem,
    blame,
    check,
    parse_toml,
    read_text,
    write_text,
)
from maskedflow.sources import Dialect
from maskedflow.training import TrainConfig

from .arguments import Arguments, Module

__all__ = ["DataConfig", "FlowConfig", "RunConfig", "SearchConfig", "versions"]

_HEADER = """\
# A run of maskedflow. load_run(), evaluate, sample and score read this file;
# `maskedflow train --config` this file trains likewise.

"""

_SAME = ("columns", "context_columns", "image_shape", "levels", "time", "window")
"""What the flow of a run takes its numbers for: settings of the data that cannot be edited."""
_AFFINE = ("MADE", "MAF", "IAF", "NICE", "RealNVP")
"""The constructors whose transforms are affine in a feature."""


@dataclass(frozen=True)
class DataConfig:
    """Where the rows of a run came from, and what they look like.

    Args:
        dataset: Name of a known data set; None for a table of one's own.
        file: The table's path; None for a known data set.
        data_dir: The folder that was searched for the data set, if one was named.
        labels: Whether an image's class is the context.
        seed: Seed of the split.
        columns: A name for each feature.
        context_columns: A name for each context dimension.
        image_shape: (channels, height, width), for images.
        levels: The number of values of a pixel, for images.
        rows: The number of training, validation and test rows. A search validates by parts of the
            training rows.
        time: The column of times, for a time series.
        window: The steps of a window to train on, for a time series.
        stream: Whether the table stayed on disk.
        dealing: "values" if copies of a row of the table went to one split, "rows" if each row was
            dealt by itself: where there are none, and by earlier versions.
        distinct: The number of rows that are no copies of another one, if there are copies.
        errors: Of features that were measured with errors the columns of their standard deviations.
        weights: The column that says how much each row counts, if there is one.
        effective: The numbers of rows of equal weight that training, validation and test rows are
            worth, if there is.
        dialect: How a CSV file is written, as far as that was said.
    """

    __pydantic_config__: ClassVar = CLOSED

    columns: Annotated[tuple[Name, ...], Len(min_length=1)]
    rows: tuple[Count, Count, Count]
    dataset: Name | None = None
    file: Name | None = None
    data_dir: Name | None = None
    labels: bool = False
    seed: Count = 0
    context_columns: tuple[Name, ...] = ()
    image_shape: tuple[Size, Size, Size] | None = None
    levels: Size | None = None
    time: Name | None = None
    window: Size | None = None
    stream: bool = False
    dealing: Dealing = "rows"
    distinct: Count | None = None
    errors: dict[Name, Name] = field(default_factory=dict)
    weights: Name | None = None
    effective: tuple[Finite, Finite, Finite] | None = None
    dialect: Dialect | None = None


@dataclass(frozen=True)
class FlowConfig:
    """How the flow is built, from data to base.

    Args:
        name: A constructor in `maskedflow.flows`.
        arguments: Its keyword arguments, plain values only: what is no number is told by name, see
            :func:`maskedflow.runs.build_flow`.
        seed: Seed of the generator it draws masks and first weights from.
        preprocessing: The transforms before it, each `{"kind": ..., **arguments}`.
        embedding: The module that a context goes through first, alike.
    """

    __pydantic_config__: ClassVar = CLOSED

    name: Name
    arguments: Arguments
    seed: Count = 0
    preprocessing: tuple[Module, ...] = ()
    embedding: Module | None = None

    @property
    def continuous(self) -> bool:
        """Whether values that are on a grid have a continuous density."""
        return all(step["kind"] != "Dequantize" for step in self.preprocessing)

    @property
    def wide(self) -> bool:
        """Whether rows and contexts are taken in float64."""
        return any(step["kind"] == "Narrow" for step in self.preprocessing)

    @property
    def note(self) -> str | None:
        """What a reader of the results should know: whether the flow is less than it seems.

        A hidden layer may be too narrow for its masks: networks without degrees are not masked, a
        draw of random ones is meant to miss some, and `passes` leave `passes - 1` of these. And
        affine transforms of one feature, however many, are one affine transform.

        Example:
            >>> shape = {"features": 9, "hidden_features": [4, 16], "degrees": "sequential"}
            >>> FlowConfig("MAF", shape).note
            'a hidden layer of 4 units has no unit of its own for each of 8 degrees (9 features)'
        """
        features = self.arguments["features"]
        affine = self.name in _AFFINE and not self.arguments.keys() & {"components", "base"}
        if affine and features == 1:
            given = ", given the context" if self.arguments.get("context") else ""
            return (
                f"affine transforms of one feature, however many, make a Gaussian{given}; "
                "--flow nsf, of splines, makes more"
            )
        if self.arguments.get("degrees") != "sequential":
            return None
        degrees = min(features, self.arguments.get("passes", features)) - 1
        narrowest = min(self.arguments["hidden_features"])
        if narrowest >= degrees:
            return None
        return (
            f"a hidden layer of {narrowest} units has no unit of its own for each of "
            f"{degrees} degrees ({features} features)"
        )


@dataclass(frozen=True)
class SearchConfig:
    """What was searched for the density of a table, whose schema and plan are beside it.

    Args:
        flow: What was tried, such as "auto".
        missing: What becomes of missing values.
        work: The work that was allowed; None of a run of an early version.
        time_limit: The seconds by which the work was chosen, if there was a limit.
        seconds: How long it took.
    """

    __pydantic_config__: ClassVar = CLOSED

    flow: Name
    missing: Missing = "error"
    work: Finite | None = None
    time_limit: Finite | None = None
    seconds: Finite = 0.0


@dataclass(frozen=True)
class RunConfig:
    """All that is recorded of a run: of a flow that is trained, or of a search for a density.

    Args:
        name: The run's name, that of its folder.
        data: The rows.
        flow: The flow; None of a search.
        training: The training; likewise.
        search: The search; None of a flow.
        options: The options of `maskedflow train` that led to all this.
        versions: Versions of Python and of the libraries that matter for the numbers.
        level: A log-density, in nats, far below those of all training rows; None of a search, of a
            time series, and of earlier versions. See :func:`maskedflow.runs.level_of`.

    Example:
        >>> config = RunConfig(
        ...     "mine",
        ...     DataConfig(columns=("a", "b"), rows=(80, 10, 10), file="mine.csv"),
        ...     FlowConfig("MAF", {"features": 2, "transforms": 5}),
        ...     TrainConfig(epochs=3),
        ... )
        >>> RunConfig.from_toml(config.to_toml()) == config
        True
    """

    __pydantic_config__: ClassVar = CLOSED

    name: Stem
    data: DataConfig
    flow: FlowConfig | None = None
    training: TrainConfig | None = None
    search: SearchConfig | None = None
    options: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: versions())  # noqa: PLW0108 (defined below)
    level: Finite | None = None

    def __post_init__(self) -> None:
        if (self.flow is None) != (self.training is None) or (self.flow is None) == (
            self.search is None
        ):
            raise ValueError("expected either [flow] and [training], or [search]")

    @property
    def digest(self) -> str:
        """What a checkpoint is known by: it changes with all that its numbers depend on.

        Where data lie, how the training went and the seed that it began with may be edited.
        """
        plain = self.to_dict()
        flow = {key: value for key, value in plain["flow"].items() if key != "seed"}
        data = {key: plain["data"].get(key) for key in _SAME}
        if self.data.errors:  # which early records have not
            data["errors"] = plain["data"]["errors"]
        text = json.dumps([flow, data], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values."""
        values: dict[str, Any] = _without_none(asdict(self))
        return values

    def to_toml(self) -> str:
        """The text of `config.toml`."""
        return _HEADER + tomli_w.dumps(self.to_dict())

    @classmethod
    def from_toml(cls, text: str) -> RunConfig:
        """Reads what `to_toml` wrote.

        Raises:
            ValueError: If it is no TOML, or something is missing, unknown, or not of its type.
        """
        document = parse_toml(text)
        if "table" in document:
            document = _of_table(document)
        for name in ("data", "options", "versions"):
            if name not in document:
                raise ValueError(f"expected [{name}], found {sorted(document)!r:.200}")
        return check(cls, document)

    def write(self, path: Path) -> None:
        """Writes `config.toml`, beside its place first and then moved into it."""
        write_text(path, self.to_toml())

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """Reads `config.toml`.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is not what `write` writes; the message names the file.
        """
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file; {path.parent} holds no run")
        text = read_text(path)
        with blame(path, "not the record of a run"):
            return cls.from_toml(text)


@with_config(CLOSED)
class _Table(TypedDict):
    """The section of early records of a search, which kept the rest among the options."""

    columns: tuple[Name, ...]
    context_columns: tuple[Name, ...]
    rows: tuple[Count, Count]
    seconds: Finite
    dealing: NotRequired[Dealing]
    distinct: NotRequired[Count]


def _of_table(document: dict[str, Any]) -> dict[str, Any]:
    """The record of an early search as it would be today."""
    table = check(_Table, document.pop("table"))
    options = check(dict[str, Any], document.get("options"))
    fitted, held_out = table["rows"]
    shared = {k: v for k, v in table.items() if k not in ("rows", "seconds")}
    file, seed = options.get("data"), options.get("seed")
    data: dict[str, Any] = {**shared, "rows": [fitted, 0, held_out], "file": file, "seed": seed}
    search: dict[str, Any] = {"flow": options.get("flow"), "seconds": table["seconds"]}
    search |= {k: v for k, v in options.items() if k in ("missing", "work", "time_limit")}
    return {**document, "data": data, "search": search}


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a run's numbers depend on."""
    libraries = {name: version(name) for name in ("maskedflow", "torch", "numpy")}
    return {"python": platform.python_version(), **libraries}


def _without_none(value: Any) -> Any:
    """TOML has no null: a key that is None is left out."""
    if isinstance(value, dict):
        return {key: _without_none(v) for key, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(v) for v in value]
    return value
