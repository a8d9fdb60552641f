"""Tables of numbers, CSV and Parquet: read in blocks and checked cell by cell."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskedflow.sources import Source, open_source
from maskedflow.sources.numbers import floats, numbers
from maskedflow.sources.source import ROWS

from .dataset import Dataset, Split
from .discrete import find_cells, needs_float64, notes_on
from .split import Dealing, check_dealing, copies, deal


def open_table(
    path: str | os.PathLike[str],
    *,
    context: Sequence[str] = (),
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    dealing: Dealing = "values",
    continuous: bool = False,
) -> Dataset:
    """Opens your own table as a data set, its rows dealt at random into three splits.

    Rows that are copies of one another (of a chain of Markov's, a bootstrap) go to one split.

    Every column must hold finite numbers; integers are read as floats. A context column may be
    constant, a feature may not: its density would be infinite. Features whose values are on a grid
    and shared by many rows, such as flags and counts, are dequantised by the data set's
    `preprocessing`, since a continuous density of them has no bound; its `notes` name them.

    Args:
        path: A `.csv` (with a header) or `.parquet` file, or a folder of `.parquet` files.
        context: The columns to condition on; the others are the features.
        validation: The fraction of the rows that validates, in [0, 1).
        test: The fraction of the rows that tests, in [0, 1).
        seed: Which rows go where.
        dealing: "values", or "rows" to deal each row by itself, as earlier versions did.
        continuous: Whether to leave values on a grid as they are.

    Returns:
        The data set in the table's own units: in float32, or in float64 if a column has an offset
        so large that float32 would not tell its numbers apart.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, a cell is no finite number (the message names its
            column and row), a context column is unknown, a feature is constant, or rows, or
            distinct ones, are few.

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
    path = Path(path)
    if validation < 0 or test < 0 or not validation + test < 1:
        raise ValueError(
            "validation, test: expected fractions in [0, 1), together below 1, "
            f"got {validation} and {test}"
        )
    source = open_source(path)
    features, context = roles(source, context)
    columns = (*features, *context)
    x = read_table(path, columns)
    if not len(x):
        raise ValueError(f"{path}: expected rows below the header, found none")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    if needs_float64(x, order):
        exact = read_table(path, columns, torch.float64)
        x = exact if needs_float64(exact, order) else x
    sizes = int(validation * len(x)), int(test * len(x))
    for argument, fraction, size in zip(
        ("validation", "test"), (validation, test), sizes, strict=True
    ):
        if fraction and not size:
            raise ValueError(
                f"{argument}: {fraction} of the {len(x)} rows of {path} is less than one row"
            )
    check_dealing(dealing)
    numbers_of_rows = list(x.numpy().T)
    group = copies(numbers_of_rows, numbers_of_rows) if dealing == "values" else None
    try:
        parts = deal([len(x) - sum(sizes), *sizes], seed, group)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    train, validation_split, test_split = (
        Split(x[rows, : len(features)], x[rows, len(features) :] if context else None)
        for rows in parts
    )
    check_varying(train.x, features, path)
    cells, without = (
        (None, []) if continuous else find_cells(x[:, : len(features)], order, features)
    )
    return Dataset(
        path.stem,
        train,
        validation_split,
        test_split,
        features,
        context,
        dealing="rows" if group is None else "values",
        distinct=None if group is None else len(np.unique(group)),
        cells=cells,
        notes=(*source.notes, *notes_on(features, cells, without)),
    )


def roles(source: Source, context: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The features and the context columns of a table.

    Raises:
        ValueError: If a context column is unknown, or no feature is left.
    """
    context = source.known(context, "context")
    features = tuple(name for name in source.names if name not in context)
    if not features:
        raise ValueError(f"context: takes all columns of {source.path}, none is left to model")
    return features, context


def column_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of a table's columns, in the file's order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or names are missing or given twice.
    """
    return open_source(path).names


def read_table(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Reads columns of a table (all, if None), shape `(rows, columns)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As `iter_batches`.
    """
    names = column_names(path) if columns is None else tuple(columns)
    empty = torch.empty(0, len(names), dtype=dtype)
    return torch.cat([empty, *iter_batches(path, names, dtype=dtype)])


def iter_batches(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    rows: int = ROWS,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tensor]:
    """Reads columns of a table (all, if None) block by block, in constant memory.

    Args:
        path: A `.csv` or `.parquet` file, or a folder of `.parquet` files.
        columns: The columns wanted, in the order wanted.
        rows: The most rows in a block.
        dtype: float32 or float64.

    Yields:
        The next rows in the file's order, shape `(<= rows, columns)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, a column is unknown, or a cell is no finite number;
            the message names the column and the row, counted from 1 below the header.
    """
    if rows < 1:
        raise ValueError(f"rows: expected at least one row in a block, got {rows}")
    source = open_source(path)
    columns = source.names if columns is None else source.known(columns, "columns")
    start = 0
    for batch in source.batches(columns, floats(columns), rows=rows):
        yield numbers(batch, columns, source, start, dtype)
        start += batch.num_rows


def check_varying(x: Tensor, columns: tuple[str, ...], path: Path) -> None:
    """Refuses features without spread, and those whose spread x's dtype cannot show."""
    check_range(x.amin(0), x.amax(0), columns, path, len(x))


def check_range(low: Tensor, high: Tensor, columns: tuple[str, ...], path: Path, n: int) -> None:
    """Refuses features, given the smallest and largest of n values of each, that do not vary."""
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
