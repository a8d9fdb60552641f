"""Tables of numbers, CSV and Parquet, as data sets: their rows in memory, or left on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from maskedflow.columns.reading import all_numbers, check_sizes, read_source
from maskedflow.sources import CellError, Source, open_source
from maskedflow.sources.numbers import blocks, floats, numbers, weights_of
from maskedflow.sources.source import ROWS

from .bounded import bounds_within, reaches
from .dataset import Dataset, StreamedDataset
from .dealing import Dealing, check_dealing, deal_rows
from .discrete import find_cells, needs_float64, notes_on
from .errors import check_errors, roles
from .split import Split
from .streamed import HashedRows, StreamedSplit, Survey, split_of

File = str | os.PathLike[str] | Source
"""A table on disk, or one that is open already."""


def open_table(
    path: File,
    *,
    table: pa.Table | None = None,
    context: Sequence[str] = (),
    weights: str | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    dealing: Dealing = "values",
    continuous: bool = False,
    errors: Mapping[str, str] | None = None,
) -> Dataset:
    """Opens your own table as a data set, its rows dealt at random into three splits.

    Rows that are copies of one another (of a Markov chain, a bootstrap) go to one split.

    Every column must hold finite numbers; integers are read as floats. A context column may be
    constant, a feature may not: its density would be infinite. Features whose values are on a grid
    and shared by many rows, such as flags and counts, are dequantised by the data set's
    `preprocessing`, since a continuous density of them has no bound; its `notes` name them.

    Args:
        path: A file or a folder as :func:`open_source` takes it. Its bounds are kept.
        table: Its columns, where they have been read already.
        context: The columns to condition on; the others are the features.
        weights: The column that says how much each row counts, no feature; that which the file
            itself names, if it does, if None.
        validation: The fraction of the rows that validates, in [0, 1).
        test: The fraction of the rows that tests, in [0, 1).
        seed: Which rows go where.
        dealing: "values", or "rows" to deal each row by itself, as earlier versions did.
        continuous: Whether to leave values on a grid as they are.
        errors: The columns of the standard deviations of measurement errors, by feature. They stand
            behind the context in the splits, as :class:`maskedflow.flows.Measured` takes them, and
            their features are continuous, whatever grid they were rounded to.

    Returns:
        The data set in the table's own units: in float32, or in float64 if a column has an offset
        so large that float32 would not tell its numbers apart.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, a cell is no finite number (the message names its
            column and row), an error is negative, a context column is unknown, a feature is
            constant, or rows, or distinct ones, are few.

    Example:
        >>> import tempfile
        >>> from maskedflow.data import write_table
        >>> path = Path(tempfile.mkdtemp()) / "heights.csv"
        >>> write_table(path, ["age", "height"], [torch.randn(100, 2)])
        100
        >>> table = open_table(path, context=["age"])
        >>> table.columns, table.context_columns, len(table.train)
        (('height',), ('age',), 80)
    """
    if validation < 0 or test < 0 or not validation + test < 1:
        raise ValueError(
            "validation, test: expected fractions in [0, 1), together below 1, "
            f"got {validation} and {test}"
        )
    source = open_source(path).weighed_by(weights)
    features, context, errors = roles(source, context, errors)
    columns, width = (*features, *context, *errors.values()), len(features)
    weight = weights_of(source, table)
    if table is None:
        table = source.table(columns, floats(columns))
    n = table.num_rows
    if not n:
        raise ValueError(f"{source.path}: expected rows below the header, found none")
    x = numbers(table, columns, source)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    blurred = reaches(x, features, source.bounds, errors) is not None
    if blurred or needs_float64(x, order):
        exact = numbers(table, columns, source, dtype=torch.float64)
        clear = blurred and reaches(exact, features, source.bounds, errors) is None
        x = exact if clear or needs_float64(exact, order) else x
    del table  # it takes twice the memory
    check_errors(x[:, len(columns) - len(errors) :], tuple(errors.values()), source)
    sizes = int(validation * n), int(test * n)
    for argument, fraction, size in zip(
        ("validation", "test"), (validation, test), sizes, strict=True
    ):
        if fraction and not size:
            raise ValueError(
                f"{argument}: {fraction} of the {n} rows of {source.path} is less than one row"
            )
    rows_of = list(x.numpy().T)
    try:
        parts, distinct = deal_rows(rows_of, rows_of, [n - sum(sizes), *sizes], seed, dealing)
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from None
    train, validates, tests = (
        Split(
            x[rows, :width],
            x[rows, width:] if len(columns) > width else None,
            None if weight is None else weight[rows],
            checked=True,
        )
        for rows in parts
    )
    counted = train.x if weight is None else train.x[train.mass > 0]
    if len(counted):
        check_varying(*counted.aminmax(dim=0), features, source.path, len(counted))
    splits, looked_at = (train, validates, tests), (x, order, continuous)
    known: dict[str, Any] = {"dealing": "values" if distinct else "rows", "distinct": distinct}
    return _dataset(features, source, context, errors, splits, *looked_at, **known)


def open_streamed(
    path: File,
    *,
    context: Sequence[str] = (),
    weights: str | None = None,
    seed: int = 0,
    dealing: Dealing = "values",
    continuous: bool = False,
    errors: Mapping[str, str] | None = None,
) -> StreamedDataset:
    """Opens your own table as a data set whose training rows stay on disk.

    One pass over the table finds mean, scale and range of the training rows and makes sure that
    every cell is a finite number; another one follows if float32 does not tell them apart. Whether
    a row validates or tests is a hash of its values, or of its number where equal rows are no
    copies: a tenth of the rows each, but at most about 100,000, which are in memory as is a sample
    of the training rows. From these follows which features are dequantised.

    Arguments are those of :func:`maskedflow.data.open_table`, and so is what is raised; with a
    column of `weights` that is a ValueError. The `train`
    of the data set is the sample of the training rows; `streamed` stands for all.

    Example:
        >>> import tempfile
        >>> from maskedflow.data import write_table
        >>> path = Path(tempfile.mkdtemp()) / "heights.parquet"
        >>> write_table(path, ["age", "height"], [torch.randn(1000, 2)])
        1000
        >>> table = open_streamed(path, context=["age"])
        >>> len(table.streamed) + len(table.validation) + len(table.test)
        1000
    """
    source = open_source(path).weighed_by(weights)
    if source.weights is not None:
        raise ValueError(
            f"weights: {source.path} stays on disk (--stream), where no column of weights is read, "
            f"got {source.weights!r}; --no_stream reads it into memory"
        )
    features, context, errors = roles(source, context, errors)
    check_dealing(dealing)
    width, wrong = len(features), tuple(errors.values())
    for start, block in blocks(source, wrong) if wrong else ():
        check_errors(block, wrong, source, start)
    rows = HashedRows.of(source, (*features, *context, *wrong), seed, dealing)
    found = Survey(rows, torch.float32)
    blurred = reaches(found.some()[0], features, source.bounds, errors) is not None
    if blurred or needs_float64(*found.some()):
        exact = Survey(rows, torch.float64)
        clear = blurred and reaches(exact.some()[0], features, source.bounds, errors) is None
        found = exact if clear or needs_float64(*exact.some()) else found
    moments = found.moments
    check_varying(moments.low[:width], moments.high[:width], features, source.path, moments.n)
    validates, tests, sample = (split_of(part, width) for part in found.parts)
    streamed = StreamedSplit(
        rows,
        width,
        tuple(found.counts.tolist()),
        sample,
        *moments.location_and_scale(),
        found.sketch.fingerprint(),
    )
    splits, looked_at = (sample, validates, tests), (*found.some(), continuous)
    opened = _dataset(features, source, context, errors, splits, *looked_at, dealing=dealing)
    return StreamedDataset(**vars(opened), streamed=streamed)


def open_if_numbers(source: Source, *, stream: bool = False, **asked: Any) -> Dataset | pa.Table:
    """Opens a table as a data set if all its columns are numbers, and else only reads it.

    The file is read once, or once for each dtype that is tried if it stays on disk (`stream`). For
    the other arguments see :func:`open_table`.
    """
    if not stream:
        table = read_source(source, sizes=False)
        if all_numbers(table):
            return open_table(source, table=table, **asked)  # which looks at every cell
        check_sizes(table, source)
        return table
    try:
        return open_streamed(source, **asked)
    except CellError:
        table = read_source(source)
        if all_numbers(table):
            raise
        return table


def _dataset(
    features: tuple[str, ...],
    source: Source,
    context: tuple[str, ...],
    errors: Mapping[str, str],
    splits: tuple[Split, Split, Split],
    x: Tensor,
    order: Tensor,
    continuous: bool,
    **known: Any,
) -> Dataset:
    """The data set of these splits, whose grids are found in rows x, looked at in an order."""
    cells, without = (
        (None, []) if continuous else find_cells(x[:, : len(features)], order, features, errors)
    )
    bounds = bounds_within(x, features, source, cells, errors)
    notes = (*source.notes, *notes_on(features, cells, without))
    known = {"cells": cells, "bounds": bounds, "notes": notes, "errors": errors, **known}
    return Dataset(source.name, *splits, features, context, **known)


def column_names(path: File) -> tuple[str, ...]:
    """The names of a table's columns, in the file's order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or names are missing or given twice.
    """
    return open_source(path).names


def read_table(
    path: File,
    columns: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Reads columns of a table (all, if None), shape `(rows, columns)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As `iter_batches`.
    """
    source = open_source(path)
    columns = source.names if columns is None else source.known(columns, "columns")
    return numbers(source.table(columns, floats(columns)), columns, source, dtype=dtype)


def iter_batches(
    path: File,
    columns: Sequence[str] | None = None,
    rows: int = ROWS,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tensor]:
    """Reads columns of a table (all, if None) block by block, in constant memory.

    Args:
        path: A file or a folder as :func:`open_source` takes it.
        columns: The columns wanted, in the order wanted.
        rows: The most rows in a block, which has shape `(<= rows, columns)`.
        dtype: float32 or float64.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, a column is unknown, or a cell is no finite number;
            the message names the column and the row, counted from 1 below the header.
    """
    if rows < 1:
        raise ValueError(f"rows: expected at least one row in a block, got {rows}")
    source = open_source(path)
    columns = source.names if columns is None else source.known(columns, "columns")
    for _, block in blocks(source, columns, dtype, rows=rows):
        yield block


def check_varying(low: Tensor, high: Tensor, columns: tuple[str, ...], path: Path, n: int) -> None:
    """Refuses features whose n values, from low to high, have no spread that their dtype shows."""
    for name, least, most in zip(columns, low.tolist(), high.tolist(), strict=True):
        size = max(abs(least), abs(most))
        eps = torch.finfo(low.dtype).eps
        if most - least > 1000 * eps * size:
            continue
        if least == most and size < 2 / eps:
            raise ValueError(
                f"{path}: column {name!r} is constant ({least:g} in all {n} training rows); "
                "expected values that vary, leave the column out or make it a context"
            )
        raise ValueError(
            f"{path}: column {name!r} is {least:.10g} nearly everywhere, its differences too "
            f"small for {str(low.dtype)[6:]}; expected values nearer to zero, subtract an offset"
            " first"
        )
