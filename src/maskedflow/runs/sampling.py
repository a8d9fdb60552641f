"""Drawing many rows from a density, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskedflow.sources import Shard, open_source
from maskedflow.tables import FittedTable, to_table
from maskedflow.tables.queries import sample_given
from maskedflow.training.randomness import derive_seed

from .density import Density
from .run import Run

__all__ = ["ROWS", "sample_batches", "sample_given_run", "sample_run"]

ROWS = 1000
"""Rows drawn at once."""

CANDIDATES = 1000
"""The rows from which those with some columns given are drawn."""


def sample_batches(
    density: Density,
    n: int,
    context: Any = None,
    *,
    seed: int = 0,
    rows: int = ROWS,
    shard: Shard | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Draws `n` rows, or `n` rows for each context, in bounded memory.

    The draws of a block follow from the seed and the block's number, so that a piece of the rows
    can be drawn without those before it.

    Args:
        density: The density.
        n: The number of rows, or of rows for each context.
        context: One context a row.
        seed: Seed of the draws; the same seed and `rows` give the same rows.
        rows: The most rows drawn at once.
        shard: Which piece of the rows to draw; all of them if None.

    Yields:
        At most so many samples in the data's own units, and the context of each.

    Raises:
        ValueError: If `n` is less than 1.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    total = n if context is None else n * context.shape[0]
    first, last = (shard or Shard()).part(total, rows)
    for start in range(first, last, rows):
        block = np.arange(start, min(start + rows, last))
        given = None if context is None else _take(context, block // n)
        yield density.sample(len(block), given, seed=derive_seed(seed, start // rows)), given


def sample_run(
    run: Run,
    n: int,
    context: Any = None,
    *,
    seed: int = 0,
    shard: Shard | None = None,
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Draws rows as :func:`sample_batches`, to be written to a file.

    Args:
        run: The run.
        n: The number of rows, or of rows for each context.
        context: The contexts, as :meth:`Run.read_context` reads them.
        seed: Seed of the draws; the same seed gives the same rows.
        shard: Which piece of the rows to draw; all of them if None.

    Returns:
        The columns, in the types of the data and with the context behind them, and the rows.
    """
    density = run.density
    drawn = sample_batches(density, n, context, seed=seed, shard=shard)
    tables = (density.arrow(x, c) for x, c in drawn)
    first = next(tables, None)
    if first is None:  # a piece without rows has columns all the same
        given = None if context is None else _take(context, np.zeros(1, np.int64))
        first = density.arrow(density.sample(1, given, seed=seed), given).slice(0, 0)
    batches = (b for t in chain([first], tables) for b in t.combine_chunks().to_batches())
    return first.schema, batches


def sample_given_run(
    run: Run, path: Path, n: int, *, seed: int = 0, shard: Shard | None = None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Draws what is unknown of each row of a file, as `DensityEstimator.sample_given` does.

    Args:
        run: A run of a search.
        path: A table in a file with some of the run's columns, and all that it is conditional on;
            cells that are missing are drawn.
        n: The number of draws for each row.
        seed: Seed of the draws; the same seed gives the same rows.
        shard: Which piece of the file's rows; all of them if None.

    Returns:
        The columns, those of the context behind them, and complete rows.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the run is of a single flow, or the file has none of its columns or lacks
            one of the context; while rows are drawn, if a cell cannot be.
    """
    fitted = run.density
    if not isinstance(fitted, FittedTable):
        raise ValueError(
            f"given: {run.directory} is a single flow, which does not draw some columns given "
            "others; a run of train --flow auto does"
        )
    source = open_source(path)
    there = [name for name in fitted.columns if name in source.names]
    if not there:
        raise ValueError(
            f"given: {path} has none of the columns {', '.join(fitted.columns)}; its columns are "
            f"{', '.join(source.names)}"
        )
    names = (*there, *source.known(fitted.context_columns, "given"))
    first, last = (0, None) if shard is None else shard.part(source.count(), ROWS)

    def draw(table: pa.Table, start: int) -> pa.Table:
        part, block = fitted.read_some(table, source, start), start // ROWS
        if not len(part):
            x = to_table(fitted.schema, fitted.density.build_rows(0))
            return fitted.arrow(x, part.context)
        try:
            x = sample_given(
                fitted, part.x, part.context, n, CANDIDATES, derive_seed(seed, block), start
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        again = np.repeat(np.arange(len(part)), n)
        return fitted.arrow(x, None if part.context is None else part.context.take(again))

    blocks = source.batches(names, fitted.types, rows=ROWS, first=first, last=last)
    tables = (
        draw(pa.Table.from_batches([batch]), first + i * ROWS) for i, batch in enumerate(blocks)
    )
    head = next(tables, None)
    if head is None:
        none = source.types(names, fitted.types).empty_table()
        head = draw(none, 0)
    return head.schema, (b for t in chain([head], tables) for b in t.combine_chunks().to_batches())


def _take(context: Any, index: NDArray[np.int64]) -> Any:
    return context.take(index) if isinstance(context, pa.Table) else context[index]
