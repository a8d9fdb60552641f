"""A run on a mixed table: an estimator that was fitted to a file, in a folder of its own.

The folder holds::

    <name>/config.toml               what was asked for
           schema.toml               what is known of the columns, complete
           estimator.safetensors     the fitted estimator
           results_summary.txt
           samples/<name>_samples.csv, or .parquet
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskedflow.data import Seen, open_source
from maskedflow.files import write_text
from maskedflow.tables import (
    Schema,
    check_context,
    complete,
    read_declared,
    strange_context,
    to_rows,
)

from .config import TableConfig
from .estimator import DensityEstimator
from .mixed import MixedTable, deal
from .trace import seen_by

__all__ = [
    "TableRun",
    "fit_table",
    "load_table_run",
    "write_run",
]


@dataclass(frozen=True)
class TableRun:
    """A fitted estimator with its record.

    Args:
        directory: The run's folder.
        config: What `config.toml` says.
        estimator: The estimator, whose tables are Arrow's.
    """

    directory: Path
    config: TableConfig = field(repr=False)
    estimator: DensityEstimator = field(repr=False)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.name

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have a density."""
        return self.config.columns

    @property
    def context_columns(self) -> tuple[str, ...]:
        """The columns it is conditional on."""
        return self.config.context_columns

    @property
    def schema(self) -> Schema:
        """What is known of the columns."""
        return self.estimator.schema_

    @property
    def summary(self) -> Path:
        """The results, as text."""
        return self.directory / "results_summary.txt"

    @property
    def samples(self) -> Path:
        """A file of samples, of the kind that the table is in."""
        suffix = ".csv" if Path(self.config.options["data"]).suffix == ".csv" else ".parquet"
        return self.directory / "samples" / f"{self.name}_samples{suffix}"

    @property
    def schemas(self) -> tuple[Schema, ...]:
        """What is known of the columns, and of those of the context, if there are any."""
        given = self.estimator.context_schema_
        return (self.schema,) if given is None else (self.schema, given)

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The types to read each column in, those of the context too."""
        return {column.name: column.type for one in self.schemas for column in one.arrow_schema}

    def table(self, file: Path | None = None) -> MixedTable:
        """Reads the table that was fitted, its rows dealt as they were then.

        Args:
            file: The table, if it is no longer where it was.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it has other columns or another number of rows than then.
        """
        path = Path(file or self.config.options["data"])
        found = deal(
            self.read(path),
            self.schema,
            self.context_columns,
            self.config.options["seed"],
            self.config.dealing,
        )
        rows = found.train.num_rows, found.test.num_rows
        if rows != self.config.rows:
            raise ValueError(
                f"{path}: rows {rows}, but {self.directory} was fitted to {self.config.rows}"
            )
        return found

    def seen(self, rows: pa.Table) -> Seen | None:
        """How many of some rows it was fitted to; None if that is not known."""
        given = rows.select(list(self.context_columns)) if self.context_columns else None
        return seen_by(self.estimator, rows.select(list(self.columns)), given)

    def read(self, path: Path) -> pa.Table:
        """Reads the run's columns, those of the context too, from a file."""
        source = open_source(path)
        names = source.known((*self.columns, *self.context_columns), "columns")
        return read_declared(source, names, self.schemas)

    def log_prob(self, table: pa.Table, start: int = 0) -> NDArray[np.float64]:
        """Computes the log-density of each row, in nats: NaN of a row that is left out.

        Args:
            table: The rows, with the columns of the context.
            start: The number of rows before these, for errors.

        Raises:
            ValueError: If a cell cannot be what its column is; the message names both.
        """
        there = complete(table) if self.schema.missing == "drop" else np.ones(table.num_rows, bool)
        if there.all():
            return self._log_prob(table, start)
        if not there.any():
            return np.full(table.num_rows, np.nan)
        # Another row in the place of one that is left out: so all keep their numbers.
        filled = table.take(np.where(there, np.arange(table.num_rows), there.argmax()))
        return np.where(there, self._log_prob(filled, start), np.nan)

    def _log_prob(self, table: pa.Table, start: int) -> NDArray[np.float64]:
        x = table.select(list(self.columns))
        c = table.select(list(self.context_columns)) if self.context_columns else None
        try:
            return self.estimator.score_samples(x, context=c)
        except ValueError:
            self.check(table, start)  # which names the row by its number in the file
            raise

    def check(self, table: pa.Table, start: int = 0) -> None:
        """Raises a ValueError that names the first cell that cannot be scored."""
        if set(self.columns) <= set(table.column_names):
            to_rows(self.schema, table, start)
        if self.estimator.context_schema_ is not None:
            check_context(self.estimator.context_schema_, table, start)

    def scorable(self, table: pa.Table) -> pa.Table:
        """The rows whose context has categories that were there in `fit`: all without one."""
        given = self.estimator.context_schema_
        return table if given is None else table.filter(pa.array(~strange_context(given, table)))


def load_table_run(directory: Path) -> TableRun:
    """Opens a run on a mixed table; see :func:`maskedflow.load_run`."""
    config = TableConfig.read(directory / "config.toml")
    estimator = DensityEstimator.load(directory / "estimator.safetensors")
    if estimator.schema_.names != config.columns:
        raise ValueError(
            f"{directory}: estimator.safetensors is of the columns "
            f"{', '.join(estimator.schema_.names)}, config.toml of {', '.join(config.columns)}"
        )
    return TableRun(directory, config, estimator)


def fit_table(directory: Path, table: MixedTable, options: dict[str, Any]) -> TableRun:
    """Fits an estimator to a table; :func:`write_run` keeps it.

    Args:
        directory: Where the run will lie.
        table: The table.
        options: Those of `maskedflow train`, of which `flow`, `time_limit`, `work` and `seed` count
            here. The work that was chosen is recorded, so that the record leads to the same fit.
    """
    estimator = DensityEstimator(
        options["flow"],
        schema=table.schema,
        missing=table.schema.missing,
        time_limit=options.get("time_limit"),
        work=options.get("work"),
        random_state=options["seed"],
    )
    x, c = table.parts(table.train)
    start = time.monotonic()
    estimator.fit(x, context=c)
    config = TableConfig(
        name=directory.name,
        options=options | {"work": estimator.work_},
        columns=table.schema.names,
        rows=(table.train.num_rows, table.test.num_rows),
        context_columns=table.context_columns,
        dealing=table.dealing,
        distinct=table.distinct,
        seconds=round(time.monotonic() - start, 1),
    )
    return TableRun(directory, config, estimator)


def write_run(run: TableRun) -> None:
    """Writes record, schema and estimator into the run's folder, which is made when missing."""
    run.samples.parent.mkdir(parents=True, exist_ok=True)
    write_text(run.directory / "schema.toml", run.schema.to_toml())
    run.estimator.save(run.directory / "estimator.safetensors")
    run.config.write(run.directory / "config.toml")
