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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow import runs
from maskedflow.data import Shard, open_source
from maskedflow.runs import Run, Scores, score_source
from maskedflow.runs.sampling import ROWS
from maskedflow.tables import Schema, blanks_to_null, complete, read_source, to_rows
from maskedflow.training.randomness import derive_seed

from .config import TableConfig
from .estimator import DensityEstimator
from .mixed import MixedTable, deal

__all__ = [
    "TableRun",
    "fit_table",
    "load_run",
    "read_context",
    "sample_table",
    "score_table",
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
    def types(self) -> dict[str, pa.DataType]:
        """The types to read each column in, those of the context too."""
        given = self.estimator.context_schema_
        schemas = [self.schema, *([] if given is None else [given])]
        return {column.name: column.type for one in schemas for column in one.arrow_schema}

    def table(self, file: Path | None = None) -> MixedTable:
        """Reads the table that was fitted, its rows dealt as they were then.

        Args:
            file: The table, if it is no longer where it was.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it has other columns or another number of rows than then.
        """
        source = open_source(file or self.config.options["data"])
        names = source.known((*self.columns, *self.context_columns), "columns")
        table = read_source(source, names)
        found = deal(table, self.schema, self.context_columns, self.config.options["seed"])
        rows = found.train.num_rows, found.test.num_rows
        if rows != self.config.rows:
            raise ValueError(
                f"{source.path}: rows {rows}, but {self.directory} was fitted to {self.config.rows}"
            )
        return found

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
        unseen = self.unseen(table, start)
        if unseen.any():
            row = start + int(unseen.argmax()) + 1
            names = ", ".join(self.context_columns)
            raise ValueError(f"row {row}: a context ({names}) with a value that was not there then")

    def scorable(self, table: pa.Table) -> pa.Table:
        """The rows whose context was there when the estimator was fitted: all without one."""
        return table.filter(pa.array(~self.unseen(table)))

    def unseen(self, table: pa.Table, start: int = 0) -> NDArray[np.bool_]:
        """Which rows have a context that was not there when the estimator was fitted."""
        if self.estimator.context_schema_ is None:
            return np.zeros(table.num_rows, np.bool_)
        found: NDArray[np.bool_] = to_rows(
            self.estimator.context_schema_, table, start
        ).impossible.numpy()
        return found


def load_run(path: str | Path) -> Run | TableRun:
    """Opens a run: its record, and the flow or the estimator. Nothing is unpickled.

    Args:
        path: The run's folder, such as `maf_results/power`.

    Returns:
        The run: of a mixed table its `estimator` scores and samples, of anything else its `flow`,
        `run.flow().log_prob(x)`; both in nats, in the units of the data.

    Raises:
        FileNotFoundError: If there is no such folder, record or checkpoint.
        ValueError: If a file is damaged, or they do not belong together.
    """
    directory = Path(path)
    if not TableConfig.is_at(directory / "config.toml"):
        return runs.load_run(directory)
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
        options: Those of `maskedflow train`, of which `flow`, `time_limit` and `seed` count here.
    """
    estimator = DensityEstimator(
        options["flow"],
        schema=table.schema,
        missing=table.schema.missing,
        time_limit=options["time_limit"],
        random_state=options["seed"],
    )
    x, c = table.parts(table.train)
    start = time.monotonic()
    estimator.fit(x, context=c)
    config = TableConfig(
        name=directory.name,
        options=options,
        columns=table.schema.names,
        rows=(table.train.num_rows, table.test.num_rows),
        context_columns=table.context_columns,
        seconds=round(time.monotonic() - start, 1),
    )
    return TableRun(directory, config, estimator)


def write_run(run: TableRun) -> None:
    """Writes record, schema and estimator into the run's folder, which is made when missing."""
    run.samples.parent.mkdir(parents=True, exist_ok=True)
    (run.directory / "schema.toml").write_text(run.schema.to_toml(), "utf-8")
    run.estimator.save(run.directory / "estimator.safetensors")
    run.config.write(run.directory / "config.toml")


def score_table(
    run: TableRun, path: Path, *, keep: Sequence[str] | None = (), shard: Shard | None = None
) -> Scores:
    """Computes the log-density of each row of a file, in nats, in constant memory.

    A row's score does not depend on other rows. It is minus infinity where a cell is something that
    its column cannot hold, such as a category that was not there. Of a run that drops rows with
    missing values, theirs is NaN.

    Args:
        run: The run.
        path: A `.csv` or `.parquet` table, or a folder of `.parquet` files, with the run's columns,
            those of the context too, in any order and among any others.
        keep: Columns to carry along; all if None.
        shard: Which piece of the table; all of it if None.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing or, while batches are read, a cell is of another type, or
            missing in a run that does not model that; the message names column and row.
    """
    source = open_source(path)
    types = run.types
    names = source.known(tuple(types), "columns")

    def log_prob(batch: pa.RecordBatch, start: int) -> Tensor:
        table = blanks_to_null(source, pa.Table.from_batches([batch]).select(list(names)))
        try:
            return torch.from_numpy(run.log_prob(table, start))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    return score_source(source, types, log_prob, keep=keep, shard=shard)


def read_context(run: TableRun, path: Path) -> pa.Table:
    """Reads the columns that a run is conditional on, found by name, from a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, or a value was not there when the run was fitted.
    """
    source = open_source(path)
    names = source.known(run.context_columns, "context")
    batches = source.batches(names, run.types)
    table = pa.Table.from_batches(batches, schema=source.types(names, run.types))
    table = blanks_to_null(source, table)
    try:
        run.check(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return table


def sample_table(
    run: TableRun,
    n: int,
    context: pa.Table | None = None,
    *,
    seed: int = 0,
    shard: Shard | None = None,
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Draws `n` rows, or `n` rows for each context, in bounded memory.

    The draws of a block follow from the seed and the block's number, so that a piece of the rows
    can be drawn without those before it.

    Args:
        run: The run.
        n: The number of rows, or of rows for each context.
        context: The contexts.
        seed: Seed of the draws; the same seed gives the same rows.
        shard: Which piece of the rows to draw; all of them if None.

    Returns:
        The columns, in the table's own types and with the context behind them, and the rows.
    """
    fields = [pa.field(column.name, column.type) for column in run.schema.columns]
    schema = pa.schema([*fields, *([] if context is None else context.schema)])
    total = n if context is None else n * context.num_rows
    first, last = (shard or Shard()).part(total, ROWS)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(first, last, ROWS):
            block = np.arange(start, min(start + ROWS, last))
            given = None if context is None else context.take(block // n)
            drawn = run.estimator.sample(
                len(block) if given is None else 1,
                random_state=derive_seed(seed, start // ROWS) % 2**32,
                context=given,
            )
            columns = [*drawn.columns, *([] if given is None else given.columns)]
            yield from pa.Table.from_arrays(columns, schema=schema).combine_chunks().to_batches()

    return schema, batches()
