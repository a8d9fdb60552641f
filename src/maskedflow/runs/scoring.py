"""Scoring a file of any size, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.sources import Shard, Source, open_source
from maskedflow.sources.source import Types

from .density import FlowDensity
from .questions import SCORE, ask
from .run import Run
from .series import score_file

__all__ = ["SCORE", "Scores", "score_batches", "score_run", "score_source"]

Array = NDArray[np.generic]

ROWS = 10_000
"""Rows scored at once, and what shards are whole multiples of."""


@dataclass(frozen=True)
class Scores:
    """Scores on their way from one file to another.

    Args:
        schema: The columns: those carried along, and then `log_prob` or what else was asked.
        batches: The rows, in the table's order.
        rows: About how many rows there will be; None if nobody knows.
        about: What should be known of the scores: what became of measurement errors.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    rows: int | None
    about: str = ""


def score_run(
    run: Run,
    path: Path | Source,
    *,
    keep: Sequence[str] | None = (),
    shard: Shard | None = None,
    rows: int = ROWS,
    explain: bool = False,
    tail: bool = False,
    given: Sequence[str] | None = None,
) -> Scores:
    """Computes log p(row) of each row of a file, in nats, in constant memory.

    A row's score does not depend on other rows, but that of a flow may depend on the block that it
    is in: in its last digits, and by the noise of values on a grid. Blocks are those of the whole
    table in a shard too, so that the shards' scores, one after another, are bit for bit the whole
    table's. A cell that its column cannot hold, such as a new category, gives minus infinity, and a
    missing one NaN where such rows are dropped.

    Args:
        run: The run.
        path: A table, as :func:`maskedflow.data.open_source` opens it, with the run's columns,
            those of the context too, in any order and among any others, and those of errors if rows
            are to be scored as measured; or a `.npy` array of rows,
            the features in the run's order and the context behind them, as `maskedflow sample`
            writes; or of images. For a time series, a table with its column of times: each row is
            scored given those before it. Or a table that is open already.
        keep: Columns to carry along; all if None.
        shard: Which piece of the table; all of it if None.
        rows: The rows of a block.
        explain: Write what each column adds to the score, as
            :meth:`maskedflow.DensityEstimator.explain` has it, in blocks of a tenth of the rows.
        tail: Add a column `tail_probability`, how much of the density is no likelier.
        given: Score the other columns given these, and add a column `standard_error`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing or, while batches are read, a cell is no finite number;
            if the array has another width; if the file has no columns to keep or no pieces; or if
            the run has no answer to what is asked.
    """
    opened, path = (path, path.path) if isinstance(path, Source) else (None, path)
    series = run.config.data.time is not None
    if series and (explain or tail or given is not None):
        raise ValueError("explain, tail, given: not of a time series, whose rows are not alike")
    positional = path.suffix == ".npy" and run.config.flow is not None and not series
    positional &= opened is None
    array = _npy(path, len(run.columns) + len(run.context_columns)) if positional else None
    source = None if series or array is not None else opened or open_source(path)
    run, about = _measured(run, path, () if source is None else source.names)
    density, names = run.density, tuple(run.density.types)
    question = ask(run, explain=explain, tail=tail, given=given)
    rows = min(rows, question.rows or rows)
    if source is None:
        what = "a time series" if series else f"the array {path}"
        if keep is None or keep:
            raise ValueError(f"keep: {what} has no columns to carry along; expected a table")
        if series and shard is not None:
            raise ValueError("shard: a time series is scored as a whole, into one file")
        if array is None:
            rows_of = (score_file(run, file) for file in (opened or path,))
            scores = (_batch(question.schema, [_array(found)]) for found in rows_of)
            return Scores(question.schema, scores, None)
        first, last = (shard or Shard()).part(len(array), rows)
        flow = cast(FlowDensity, density)
        blocks = map(flow.split, _blocks(array, path, rows, first, last, flow.dtype))
        scores = (
            _batch(question.schema, question.answer(block, number * rows, number))
            for number, block in enumerate(blocks, first // rows)
        )
        return Scores(question.schema, scores, last - first, about)

    source.known(names, "columns")

    def answer(batch: pa.RecordBatch, start: int) -> Sequence[pa.Array]:
        block = density.read(pa.Table.from_batches([batch]), source, start)
        try:  # each block has noise of its own, which does not depend on the blocks before it
            return question.answer(block, start, start // rows)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    scored = _answers(source, density.types, question.schema, answer, keep, shard, rows)
    return replace(scored, about=about)


def _measured(run: Run, path: Path, names: Sequence[str]) -> tuple[Run, str]:
    """The run, of exact rows if a file has no column of errors; what to say of these."""
    density = run.density
    if not isinstance(density, FlowDensity) or density.measured is None:
        return run, ""
    columns = density.data.errors.values()
    listed = ", ".join(columns)
    if not any(name in names for name in columns):
        return replace(run, density=density.exact), (
            f"{path} has no errors ({listed}): log_prob is the density without noise"
        )
    return run, f"log_prob is the density of rows as measured, with the errors {listed}"


def score_source(
    source: Source,
    types: Types,
    log_prob: Callable[[pa.RecordBatch, int], Tensor],
    *,
    keep: Sequence[str] | None = (),
    shard: Shard | None = None,
    rows: int = ROWS,
) -> Scores:
    """Computes a number for each row of a table, a block at a time.

    Args:
        source: The table.
        types: The columns that `log_prob` reads, and their types in a CSV file. Other columns of a
            CSV file are carried along as text, as they stand.
        log_prob: Takes a block of these columns and the number of its first row, from 0; gives the
            scores, shape (rows,).
        keep: Columns to carry along; all if None.
        shard: Which piece of the table; all of it if None.
        rows: The rows of a block.

    Raises:
        ValueError: If a column is missing, or `log_prob` is one that is to be carried along.
    """

    def answer(batch: pa.RecordBatch, start: int) -> list[pa.Array]:
        return [_array(log_prob(batch, start))]

    schema = pa.schema([(SCORE, pa.float64())])
    return _answers(source, types, schema, answer, keep, shard, rows)


def _answers(
    source: Source,
    types: Types,
    added: pa.Schema,
    answer: Callable[[pa.RecordBatch, int], Sequence[pa.Array]],
    keep: Sequence[str] | None,
    shard: Shard | None,
    rows: int,
) -> Scores:
    """Columns of a table, and those that are answers, a block at a time."""
    kept = source.names if keep is None else source.known(keep, "keep")
    for name in added.names:
        if name in kept:
            raise ValueError(
                f"keep: {source.path} has a column {name!r} itself; name the columns to carry along"
            )
    read = tuple(dict.fromkeys((*types, *kept)))
    schema = pa.schema([*source.types(kept, types), *added])
    first, last = (0, None) if shard is None else shard.part(source.count(), rows)

    def batches() -> Iterator[pa.RecordBatch]:
        start = first
        for batch in source.batches(read, types, rows=rows, first=first, last=last):
            yield _batch(schema, [*batch.select(kept).columns, *answer(batch, start)])
            start += batch.num_rows

    return Scores(schema, batches(), source.estimate() if last is None else last - first)


def score_batches(run: Run, path: Path, rows: int = ROWS) -> Iterator[Tensor]:
    """Computes log p(row) of each row of a file as :func:`score_run`, to use them in Python.

    Args:
        run: The run.
        path: The file.
        rows: The most rows scored at once.

    Yields:
        The log-densities of the next rows, float64, shape (<= rows,).

    Raises:
        FileNotFoundError: As :func:`score_run`.
        ValueError: Likewise.
    """
    for batch in score_run(run, path, rows=rows).batches:
        yield torch.tensor(batch.column(SCORE).to_numpy())


def _array(scores: Tensor) -> pa.Array:
    return pa.array(scores.numpy())


def _batch(schema: pa.Schema, columns: Sequence[pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(columns), schema=schema)


def _npy(path: Path, width: int) -> Array | None:
    """Opens an array of rows; None if it is of records, whose names make it a table.

    One of objects, which would be a pickle, is refused.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not an array of numbers: {error}") from None
    if array.dtype.names:
        return None
    if array.ndim < 2 or np.prod(array.shape[1:]) != width:
        raise ValueError(f"{path}: expected rows of {width} numbers, found shape {array.shape}")
    return array


def _blocks(
    array: Array, path: Path, rows: int, first: int, last: int, dtype: torch.dtype
) -> Iterator[Tensor]:
    """The rows of an array block by block."""
    wide = np.float64 if dtype == torch.float64 else np.float32
    for start in range(first, last, rows):
        block = torch.from_numpy(np.array(array[start : min(start + rows, last)], wide))
        block = block.reshape(len(block), -1)
        if not block.isfinite().all():
            row, column = (~block.isfinite()).nonzero()[0].tolist()
            raise ValueError(
                f"{path}: row {start + row + 1}, column {column + 1}: expected a finite number, "
                f"found {block[row, column].item()}"
            )
        yield block
