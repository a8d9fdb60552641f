"""Scoring and drawing rows of any number, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from maskedflow.runs import Scores, score_source
from maskedflow.runs.sampling import ROWS
from maskedflow.sources import Shard, open_source
from maskedflow.tables import blanks_to_null, to_arrow
from maskedflow.training.randomness import derive_seed

from .run import TableRun

__all__ = ["read_context", "sample_table", "score_table"]


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
        table = pa.Table.from_batches([batch]).select(list(names))
        table = blanks_to_null(source, table, run.schemas)
        try:
            return torch.from_numpy(run.log_prob(to_arrow(table, wanted=names), start))
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
    table = blanks_to_null(source, table, run.schemas)
    try:
        table = to_arrow(table, "context", names)
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
