"""From what was asked for to the rows and the record of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa

from maskedflow.data import (
    Dataset,
    MixedTable,
    StreamedDataset,
    open_mixed,
    too_large,
)
from maskedflow.data.table import open_if_numbers
from maskedflow.sources import CellError, Source, open_source

from .asked import (
    DIALECT,
    check_flow,
    dialect_of,
    errors_of,
    located,
    names,
    shaping,
    why_search,
)
from .config import DataConfig, RunConfig, SearchConfig
from .facts import told_distinct
from .record import check_same, config_of, weighed
from .run import open_data
from .settings import settle

__all__ = ["prepare", "recorded"]

ADVICE = {
    "missing": "; --missing drop leaves out such rows, --missing model gives them a probability",
    "kind": "; --flow auto takes columns of every kind",
    "notation": "",
    "bounds": "; --flow auto gives a bound that rows are at a probability",
}
"""What to do about a cell that is no number."""


def prepare(
    asked: Mapping[str, Any], directory: Path, earlier: RunConfig | None = None
) -> tuple[Dataset | MixedTable, RunConfig, list[str]]:
    """Opens the data of a run and settles what it will be.

    Args:
        asked: The options of `maskedflow train` that were said, by name.
        directory: Where the run will lie.
        earlier: The record of the run that is resumed.

    Returns:
        The rows, the record, and what should be known before it begins, a sentence each.

    Raises:
        ValueError: If options do not go with each other or with the data.
        FileNotFoundError: If the data are not there.
    """
    searches = why_search(asked) is not None
    if not searches:
        check_flow(asked)
    source, opened = _source(asked), None
    if searches:
        assert source is not None
        return _prepare_search(asked, directory, earlier, source)
    if source is not None and "flow" not in asked and not shaping(asked):
        opened = _open_any(source, asked)  # what it holds says what is fitted to it
        if isinstance(opened, pa.Table):
            return _prepare_search(asked, directory, earlier, source, opened)
    dataset, config = _prepare_flow(asked, directory, earlier, source, opened)
    assert config.flow is not None
    notes = [*dataset.notes, *([config.flow.note] if config.flow.note else [])]
    streamed = isinstance(dataset, StreamedDataset)
    if streamed and "stream" not in asked:
        notes.insert(0, f"{asked['data']} is large for this memory and stays on disk")
    free = not streamed and not asked.keys() & {"flow", "time", "error"}
    if asked.get("data") is not None and free:
        flow = config.options["flow"]
        chosen = f"{flow} was taken for one column; " if dataset.features == 1 else ""
        notes.append(f"{chosen}--flow auto would choose among densities by itself")
    if copies := told_distinct(sum(dataset.rows), dataset.distinct):
        notes.append(f"{dataset.name}{copies}")
    return dataset, config, notes


def _source(asked: Mapping[str, Any]) -> Source | None:
    """The table that was named, whose rows count by the weights that were; steps all alike."""
    dialect = dialect_of(asked)
    if asked.get("data") is None:
        return None
    source = open_source(asked["data"], dialect)
    return source if asked.get("time") is not None else source.weighed_by(asked.get("weights"))


def _open_any(source: Source, asked: Mapping[str, Any]) -> Dataset | pa.Table:
    """Reads a table: as a data set if all its columns are numbers."""
    with _advising():
        return open_if_numbers(
            source,
            stream=_is_streamed(asked, source),
            context=names(asked.get("context")),
            seed=asked.get("seed", 0),
            continuous=bool(asked.get("continuous")),
        )


@contextmanager
def _advising() -> Iterator[None]:
    """Says how to go on where a cell is no number."""
    try:
        yield
    except CellError as error:
        raise ValueError(f"{error}{ADVICE[error.fault]}") from None


def _prepare_search(
    asked: Mapping[str, Any],
    directory: Path,
    earlier: RunConfig | None,
    source: Source,
    whole: pa.Table | None = None,
) -> tuple[MixedTable, RunConfig, list[str]]:
    file, seed = asked["data"], asked.get("seed", 0)
    if seed >= 2**32:
        raise ValueError(f"--seed {seed}: for the search of a density, expected less than {2**32}")
    schema, missing = asked.get("schema"), asked.get("missing")
    table = open_mixed(
        source,
        table=whole,
        context=names(asked.get("context")),
        schema=schema,
        missing=missing,
        seed=seed,
    )
    notes = [*table.notes]
    if whole is not None:
        notes.append(f"{file} is not all finite numbers, so --flow auto is taken")
    if copies := told_distinct(sum(table.rows), table.distinct):
        notes.append(f"{file}{copies}")
    search = SearchConfig(
        asked.get("flow", "auto"),
        table.schema.missing,
        work=asked.get("work"),
        time_limit=asked.get("time_limit"),
    )
    options = {
        "data": located(file),
        "schema": located(schema),
        "context": asked.get("context"),
        "weights": source.weights,
        "seed": seed,
        **{name: asked.get(name) for name in DIALECT},
        **{name: getattr(search, name) for name in ("flow", "missing", "work", "time_limit")},
    }
    data = DataConfig(
        table.columns,
        table.rows,
        file=options["data"],
        seed=seed,
        context_columns=table.context_columns,
        dealing=table.dealing,
        distinct=table.distinct,
        dialect=dialect_of(asked),
        **weighed(source.weights, table),
    )
    config = RunConfig(directory.name, data, search=search, options=options)
    if earlier is not None:
        check_same(config, earlier, directory)
    return table, config, notes


def _prepare_flow(
    asked: Mapping[str, Any],
    directory: Path,
    earlier: RunConfig | None,
    source: Source | None,
    opened: Dataset | None,
) -> tuple[Dataset, RunConfig]:
    settings, errors = settle(asked), errors_of(asked)
    with nullcontext() if errors else _advising():
        dataset = opened or open_data(
            dataset=asked.get("dataset"),
            file=source,
            data_dir=asked.get("data_dir"),
            context=names(asked.get("context")),
            labels=settings["labels"],
            seed=settings["seed"],
            download=bool(asked.get("download")),
            time=asked.get("time"),
            window=asked.get("window"),
            stream=_is_streamed(asked, source),
            dealing="values" if earlier is None else earlier.data.dealing,
            continuous=bool(asked.get("continuous")),
            errors=errors,
        )
    if earlier is not None and earlier.flow is not None and not earlier.flow.wide:
        dataset = dataset.in_float32()  # as all runs were once
    alike = asked.get("time") is not None
    asked = {**asked, "weights": None if source is None or alike else source.weights}
    config = config_of(dataset, settle(asked, dataset.features), asked)
    if earlier is not None:
        check_same(config, earlier, directory)
    return dataset, config


def recorded(asked: Mapping[str, Any], earlier: RunConfig, directory: Path) -> dict[str, Any]:
    """What was asked for, and wherever that is silent, the options of the earlier run there.

    Raises:
        ValueError: If one of both is a search, and the other is none.
    """
    why = why_search(asked)
    if earlier.flow is None:
        if why is None and "flow" in asked:
            raise ValueError(
                f"--resume: {directory} holds a search, --flow {asked['flow']} is none"
            )
        then = {name: value for name, value in earlier.options.items() if value is not None}
        then.update({name: Path(then[name]) for name in ("data", "schema") if name in then})
        return {**then, **asked}
    if why is not None:
        raise ValueError(f"--resume: {directory} holds a single flow, {why} asks for a search")
    then = {**earlier.options, "continuous": earlier.flow.continuous}
    if asked.keys() & {"time_limit", "epochs"}:
        for name in ("steps", "lr_steps"):  # those that there was time for
            then.pop(name, None)
    then.update({name: Path(then[name]) for name in ("data", "data_dir") if name in then})
    return {**then, **asked}


def _is_streamed(asked: Mapping[str, Any], source: Source | None) -> bool:
    """Whether the table stays on disk: as was said, or if it is large for this machine's memory."""
    stream: bool | None = asked.get("stream")
    if source is None or asked.get("time") is not None:
        if stream:
            raise ValueError("--stream: expected --data FILE, no time series, to leave on disk")
        return False
    if stream is None:
        return source.weights is None and too_large(source)
    return stream
