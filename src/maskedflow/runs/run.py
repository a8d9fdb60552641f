"""A run's folder, opened again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import torch

from maskedflow import data
from maskedflow.data import Dataset, MixedTable, Split, TableSplit, Trace, deal_mixed
from maskedflow.data.dealing import Dealing
from maskedflow.data.table import File
from maskedflow.files import blame, check, html_facts, parse_json, read_text
from maskedflow.flows import Flow, TemporalMAF
from maskedflow.sources import Source, is_csv, open_source
from maskedflow.sources.numbers import weights_of
from maskedflow.tables import FittedTable
from maskedflow.training import checkpoint
from maskedflow.training.device import Device, device_of, move

from .build import build_flow, check_numbers
from .config import FlowConfig, RunConfig
from .density import Density, FlowDensity
from .facts import facts
from .measured import build_measured

__all__ = ["Run", "load_run"]

LOG = 2**28
"""Bytes of the longest log that is read."""
ESTIMATOR = "estimator.safetensors"
"""The name of the file with a density that was searched."""
MEMBERS = "members"
"""The name of the folder with what a search that is under way has fitted."""
TRACE = "rows"
"""The key of a checkpoint's metadata under which the trace of its rows is."""


@dataclass(frozen=True)
class Run:
    """A fitted density with its record.

    Args:
        directory: The run's folder.
        config: What `config.toml` says.
        density: What was fitted: :class:`FlowDensity` if a flow was trained,
            :class:`~maskedflow.tables.FittedTable` if the density of a table was searched.
    """

    directory: Path
    config: RunConfig = field(repr=False)
    density: Density = field(repr=False)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.name

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, or features, that have a density."""
        return self.config.data.columns

    @property
    def context_columns(self) -> tuple[str, ...]:
        """The columns that it is conditional on, none of an unconditional density."""
        return self.config.data.context_columns

    @property
    def flow(self) -> Flow | TemporalMAF:
        """The flow with its best weights, in evaluation mode and in the data's own units.

        Raises:
            AttributeError: If the density of a table was searched, which is no single flow.
        """
        return cast(FlowDensity, self.density).flow

    def to(self, device: Device) -> Run:
        """Moves its flow to a device, in place, and returns the run.

        Rows stay where they are and follow batch by batch; answers come back to the CPU. Draws by
        seed are those of one device.

        Args:
            device: As of :func:`~maskedflow.training.fit`. The density of a table that was
                searched computes on the CPU, and takes "auto" and "cpu".

        Raises:
            ValueError: If the device is not there, or cannot compute this density.
        """
        if isinstance(self.density, FlowDensity):
            move(self.density.measured or self.density.flow, device_of(device))
        elif device != "auto" and device_of(device).type != "cpu":
            raise ValueError(
                f"device: the density of {self.directory} was searched and computes on the CPU, "
                f"got {device}"
            )
        return self

    @property
    def picture(self) -> Path:
        """The picture of samples beside data."""
        return self.directory / "samples" / f"{self.name}_samples.png"

    @property
    def samples(self) -> Path:
        """A file of samples, of the kind that the table is in."""
        suffix = ".csv" if is_csv(Path(self.config.data.file or "")) else ".parquet"
        return self.picture.with_suffix(suffix)

    @property
    def summary(self) -> Path:
        """The results, as text."""
        return self.directory / "results_summary.txt"

    @property
    def facts(self) -> dict[str, str]:
        """What it is, in words: its data, its density and how that was fitted."""
        return facts(self.config, self.density, self.metrics)

    def _repr_html_(self) -> str:
        """In a notebook: what it is a density of, and how it was fitted."""
        return html_facts(self.name, {"folder": self.directory, **self.facts})

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """One record an epoch, from `logs/metrics.jsonl`; none when the file is gone.

        The NLL of a time series is in nats a step, as its test steps are judged; those of the file
        are sums over the window that it was trained on.
        """
        path = self.directory / "logs" / "metrics.jsonl"
        if not path.is_file():
            return []
        lines = read_text(path, LOG).splitlines()
        with blame(path, "not the log of a training"):
            found = [check(dict[str, Any], parse_json(line)) for line in lines]
        steps = self.config.data.window or 1
        for record, key in product(found, ("train_nll", "validation_nll")):
            if record.get(key) is not None:
                record[key] /= steps
        return found

    def dataset(
        self,
        *,
        data_dir: Path | None = None,
        file: Path | None = None,
        weights: str | None = None,
        download: bool = False,
    ) -> Dataset | MixedTable:
        """Loads the rows that the run was fitted to, split as they were then.

        Args:
            data_dir: Where to look, if not where the run found them.
            file: The table, if it is no longer where it was.
            weights: The column that says how much each row counts, if another than then.
            download: Whether a known data set may be fetched.

        Raises:
            FileNotFoundError: If they are not there.
            ValueError: If they have other columns or another number of rows than then.
        """
        source = self.config.data
        found: Dataset | MixedTable
        place, table = file or source.file, None
        if source.dataset is None and place is not None:
            table = open_source(place, source.dialect)
        if self.config.flow is None:
            assert table is not None
            fitted, whole = cast(FittedTable, self.density), self.read(table, weights)
            whole = cast(TableSplit, whole)
            found = deal_mixed(table.name, whole, fitted.schema, source.seed, source.dealing)
        else:
            found = open_data(
                dataset=source.dataset,
                file=table,
                data_dir=data_dir or source.data_dir,
                context=() if source.time else source.context_columns,
                weights=weights or source.weights,
                labels=source.labels,
                seed=source.seed,
                download=download,
                time=source.time,
                window=source.window,
                stream=source.stream,
                dealing=source.dealing,
                continuous=self.config.flow.continuous,
                errors=source.errors,
            )
            if not self.config.flow.wide and found.train.x.dtype == torch.float64:
                found = found.in_float32()
        for what, now, then in (
            ("columns", found.columns, source.columns),
            ("rows", found.rows, source.rows),
        ):
            if now != then:
                raise ValueError(
                    f"{place or found.name}: {what} {now}, but {self.directory} was "
                    f"fitted to {then}"
                )
        return found

    def read(self, path: File, weights: str | None = None) -> Split | TableSplit:
        """Reads the run's columns, those of the context and of weights too, from a file.

        Args:
            path: A file as :func:`maskedflow.data.open_source` takes it.
            weights: The column that says how much each row counts, if another than that of the
                run's own rows.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a column is missing, or a cell is of another type.
        """
        table, source = self._table(path, tuple(self.density.types), "columns")
        rows: Split | TableSplit = self.density.read(table, source)
        weighed = source.weighed_by(weights or self.config.data.weights)
        return replace(rows, weight=weights_of(weighed))

    def read_context(self, path: File) -> Any:
        """Reads the columns that the density is conditional on, found by name, from a file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a column is missing, or a category was not there when it was fitted.
        """
        table, source = self._table(path, self.context_columns, "context")
        return self.density.read_context(table, source)

    def _table(self, path: File, wanted: tuple[str, ...], argument: str) -> tuple[pa.Table, Source]:
        source, types = open_source(path), self.density.types
        names = source.known(wanted, argument)
        batches = source.batches(names, types)
        return pa.Table.from_batches(batches, schema=source.types(names, types)), source


def open_data(
    *,
    dataset: str | None,
    file: Path | str | Source | None,
    data_dir: Path | str | None = None,
    context: tuple[str, ...] = (),
    weights: str | None = None,
    labels: bool = False,
    seed: int = 0,
    download: bool = False,
    time: str | None = None,
    window: int | None = None,
    stream: bool = False,
    dealing: Dealing = "values",
    continuous: bool = False,
    errors: Mapping[str, str] | None = None,
) -> Dataset:
    """Loads a known data set by name, or else opens a table, a time series if `time` is named.

    With `stream` the table's training rows stay on disk. By `dealing` copies of a table's rows go
    to one side ("values"), or each by itself ("rows"); if `continuous`, values on a grid are left
    as they are.
    """
    if dataset is None:
        assert file is not None
        if time is not None:
            return data.open_series(file, time, window=window)
        opened = data.open_streamed if stream else data.open_table
        told: dict[str, Any] = {"seed": seed, "dealing": dealing, "continuous": continuous}
        return opened(file, context=context, errors=errors, weights=weights, **told)
    return data.load(dataset, data_dir, labels=labels, download=download, seed=seed)


def load_run(path: str | Path) -> Run:
    """Opens a run: its record, and what was fitted. Nothing is unpickled.

    Args:
        path: The run's folder, such as `maf_results/power`.

    Returns:
        The run: `run.density.log_prob(x)`, or of a flow also `run.flow().log_prob(x)`, is in nats,
        in the units of the data.

    Raises:
        FileNotFoundError: If there is no such folder, record or checkpoint.
        ValueError: If a file is damaged, or they do not belong together.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such run")
    record = directory / "config.toml"
    config = RunConfig.read(record)
    density: Density
    if config.flow is None:
        density = FittedTable.load(directory / ESTIMATOR)
        if density.columns != config.data.columns:
            raise ValueError(
                f"{directory}: {ESTIMATOR} is of the columns {', '.join(density.columns)}, "
                f"config.toml of {', '.join(config.data.columns)}"
            )
    else:
        density = _load_flow(directory, config, config.flow)
    return Run(directory, config, density)


def _load_flow(directory: Path, config: RunConfig, flow: FlowConfig) -> FlowDensity:
    record, best = directory / "config.toml", directory / "checkpoints" / "best.safetensors"
    tensors, header = checkpoint.read(best)
    metadata = checkpoint.metadata_of(best, header, checkpoint.METADATA, dict[str, Any])
    if metadata.get("record", config.digest) != config.digest:
        raise ValueError(
            f"{record}: [flow] or the columns of [data] are not those that {best} was trained with"
        )
    with blame(record, f"not the record that {best} was trained with"):
        check_numbers(flow, config.data, tensors)
        built = build_flow(flow)
        trained = build_measured(built, config.data)
    checkpoint.load_weights(best, trained or built, tensors)
    with blame(best, "not a checkpoint whose trace of rows can be read"):
        trace = Trace.from_plain(metadata.get(TRACE))
    return FlowDensity(built.eval(), flow, config.data, trace, trained and trained.eval())
