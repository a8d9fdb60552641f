"""Drawing many rows from a density, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskedflow.data import Dataset
from maskedflow.data.table import File
from maskedflow.sources import Shard, open_source
from maskedflow.tables import FittedTable, to_table
from maskedflow.tables.queries import sample_given
from maskedflow.training.randomness import derive_seed

from .density import Density, FlowDensity
from .level import Draws, Tally, level_of
from .measured import without_errors
from .run import Run

__all__ = [
    "ROWS",
    "draw_batches",
    "draws_of",
    "sample_batches",
    "sample_given_run",
    "sample_run",
    "to_arrow",
]

ROWS = 1000
"""Rows drawn at once."""

CANDIDATES = 1000
"""The rows from which those with some columns given are drawn."""


def sample_batches(
    density: Density | Draws,
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


def draw_batches(
    run: Run,
    n: int,
    context: Any = None,
    *,
    seed: int = 0,
    shard: Shard | None = None,
    within: bool = False,
) -> Iterator[tuple[Any, Any]]:
    r"""Draws rows as :func:`sample_batches`, and looks after those that ran away.

    Where an early feature of a draw is unusual, those that follow, of networks that are far from
    their data then, are more so: the row that comes of it may have next to no density. Draws of a
    flow are too low if their log-density is below the run's level, which is far below all training
    rows (see :func:`level_of`), or if they are not finite. That costs a density each.

    With `within` draws that are too low are left out, and others drawn in their places. What is
    left has the density

    .. math:: p(x \mid R) = p(x) / P(R), \quad R = \{x : \log p(x) \ge \ell\}

    whose P(R), given its context if there is one, is estimated by the share of draws in R.
    :class:`~maskedflow.distributions.HighestDensity` is this distribution.

    Args:
        run: The run.
        n: The number of rows, or of rows for each context.
        context: The contexts, as :meth:`Run.read_context` reads them.
        seed: Seed of the draws; the same seed gives the same rows.
        shard: Which piece of the rows to draw; all of them if None.
        within: Whether to leave out draws that are too low.

    Yields:
        At most 1,000 rows in the data's own units, and the context of each.

    Raises:
        ValueError: If `within` is asked of a run that is not of a flow of rows.
        FileNotFoundError: If it is asked of a run of an earlier version, which has no level, and
            its training rows are not there.

    Warns:
        UserWarning: How many draws were too low, and with `within` what P(R) is, if any was.
    """
    draws = draws_of(run, within)
    yield from sample_batches(draws or run.density, n, context, seed=seed, shard=shard)
    if draws is not None:
        draws.tally.warn()


def draws_of(run: Run, within: bool) -> Draws | None:
    """What looks at the draws of a run; None if no level is known, nor needed."""
    density, level = run.density, run.config.level
    if not isinstance(density, FlowDensity) or run.config.data.time is not None:
        if within:
            raise ValueError(f"within: expected a run of a flow of rows, {run.directory} is none")
        return None
    if level is None and within:
        dataset = cast(Dataset, run.dataset())
        level = level_of(density, without_errors(dataset.train, dataset))
    return None if level is None else Draws(density, Tally(level, within))


def sample_run(
    run: Run,
    n: int,
    context: Any = None,
    *,
    seed: int = 0,
    shard: Shard | None = None,
    within: bool = False,
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Draws rows as :func:`draw_batches`, to be written to a file.

    Args:
        run: The run.
        n: The number of rows, or of rows for each context.
        context: The contexts, as :meth:`Run.read_context` reads them.
        seed: Seed of the draws; the same seed gives the same rows.
        shard: Which piece of the rows to draw; all of them if None.
        within: Whether to leave out draws that are far below all training rows.

    Returns:
        The columns, in the types of the data and with the context behind them, and the rows.

    Warns:
        UserWarning: After the last row, as :func:`draw_batches`.
    """
    drawn = draw_batches(run, n, context, seed=seed, shard=shard, within=within)
    return to_arrow(run.density, drawn, context)


def to_arrow(
    density: Density, drawn: Iterator[tuple[Any, Any]], context: Any
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The columns, and the rows, of what :func:`sample_batches` draws."""
    tables = (density.arrow(x, c) for x, c in drawn)
    first = next(tables, None)
    if first is None:  # a piece without rows has columns all the same
        given = None if context is None else _take(context, np.zeros(1, np.int64))
        first = density.arrow(density.sample(1, given, seed=0), given).slice(0, 0)
    batches = (b for t in chain([first], tables) for b in t.combine_chunks().to_batches())
    return first.schema, batches


def sample_given_run(
    run: Run, path: File, n: int, *, seed: int = 0, shard: Shard | None = None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Draws what is unknown of each row of a file, as `DensityEstimator.sample_given` does.

    Args:
        run: A run of a search.
        path: A table in a file with some of the run's columns, and all that it is conditional on;
            cells that are missing are drawn. Or one that is open already.
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
    path = source.path
    there = [name for name in fitted.columns if name in source.names]
    if not there:
        raise ValueError(
            f"given: {source.path} has none of the columns {', '.join(fitted.columns)}; its "
            f"columns are {', '.join(source.names)}"
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
            raise ValueError(f"{source.path}: {error}") from None
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
