"""Tables of numbers, CSV and Parquet: read in blocks and checked cell by cell."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from .dataset import Dataset, Split
from .split import Dealing, check_dealing, columns_of, copies, deal
from .stream import ROWS, Source, open_source


def open_table(
    path: str | os.PathLike[str],
    *,
    context: Sequence[str] = (),
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    dealing: Dealing = "values",
) -> Dataset:
    """Opens your own table as a data set, its rows dealt at random into three splits.

    Rows that are copies of one another (of a chain of Markov's, a bootstrap) go to one split.

    Every column must hold finite numbers; integers are read as floats. A context column may be
    constant, a feature may not: its density would be infinite.

    Args:
        path: A `.csv` (with a header) or `.parquet` file, or a folder of `.parquet` files.
        context: The columns to condition on; the others are the features.
        validation: The fraction of the rows that validates, in [0, 1).
        test: The fraction of the rows that tests, in [0, 1).
        seed: Which rows go where.
        dealing: "values", or "rows" to deal each row by itself, as earlier versions did.

    Returns:
        The data set, in float32 and the table's own units.

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
    features, context = roles(open_source(path), context)
    x = read_table(path, (*features, *context))
    sizes = int(validation * len(x)), int(test * len(x))
    for argument, fraction, size in zip(
        ("validation", "test"), (validation, test), sizes, strict=True
    ):
        if fraction and not size:
            raise ValueError(
                f"{argument}: {fraction} of the {len(x)} rows of {path} is less than one row"
            )
    check_dealing(dealing)
    columns = columns_of(Split(x))
    group = copies(columns, columns) if dealing == "values" else None
    try:
        parts = deal([len(x) - sum(sizes), *sizes], seed, group)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    train, validation_split, test_split = (
        Split(x[rows, : len(features)], x[rows, len(features) :] if context else None)
        for rows in parts
    )
    check_varying(train.x, features, path)
    return Dataset(
        path.stem,
        train,
        validation_split,
        test_split,
        features,
        context,
        dealing="rows" if group is None else "values",
        distinct=None if group is None else len(np.unique(group)),
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


def read_table(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Tensor:
    """Reads columns of a table (all, if None) as float32, shape `(rows, columns)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As `iter_batches`.
    """
    names = column_names(path) if columns is None else tuple(columns)
    return torch.cat([torch.empty(0, len(names)), *iter_batches(path, names)])


def iter_batches(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None, rows: int = ROWS
) -> Iterator[Tensor]:
    """Reads columns of a table (all, if None) block by block, in constant memory.

    Args:
        path: A `.csv` or `.parquet` file, or a folder of `.parquet` files.
        columns: The columns wanted, in the order wanted.
        rows: The most rows in a block.

    Yields:
        The next rows in the file's order, float32, shape `(<= rows, columns)`.

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
        yield numbers(batch, columns, source, start)
        start += batch.num_rows


def floats(columns: Sequence[str]) -> dict[str, pa.DataType]:
    """The Arrow types in which columns of numbers are read."""
    return dict.fromkeys(columns, pa.float64())


def numbers(batch: pa.RecordBatch, columns: Sequence[str], source: Source, start: int) -> Tensor:
    """Turns columns of a block into float32.

    Args:
        batch: The block.
        columns: The columns wanted, in the order wanted.
        source: The table that it is of.
        start: The number of its first row in the table.

    Raises:
        ValueError: If a cell is no finite number; the message names file, column and row.
    """
    block = np.empty((batch.num_rows, len(columns)), np.float32)
    for i, name in enumerate(columns):
        cells = batch.column(name)
        kind = cells.type
        if not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        ):
            raise ValueError(f"{source.path}: column {name!r}: expected numbers, found type {kind}")
        if cells.null_count:
            path, row = source.place(start + int(pc.index(cells.is_null(), True).as_py()))
            raise ValueError(
                f"{path}: column {name!r}, row {row}: expected a finite number, "
                "found a missing value (empty, NA or nan)"
            )
        with np.errstate(over="ignore"):
            block[:, i] = cells.cast(pa.float64(), safe=False).to_numpy()
        finite = np.isfinite(block[:, i])
        if not finite.all():
            bad = int(np.argmin(finite))
            path, row = source.place(start + bad)
            raise ValueError(
                f"{path}: column {name!r}, row {row}: expected a finite number within "
                f"the range of float32, found {cells[bad].as_py()}"
            )
    return torch.from_numpy(block)


def check_varying(x: Tensor, columns: tuple[str, ...], path: Path) -> None:
    """Refuses features without spread, and those whose spread float32 cannot show."""
    check_range(x.amin(0), x.amax(0), columns, path, len(x))


def check_range(low: Tensor, high: Tensor, columns: tuple[str, ...], path: Path, n: int) -> None:
    """Refuses features, given the smallest and largest of n values of each, that do not vary."""
    for name, least, most in zip(columns, low.tolist(), high.tolist(), strict=True):
        size = max(abs(least), abs(most))
        if most - least > 1000 * torch.finfo(torch.float32).eps * size:
            continue
        if least == most and size < 2**24:
            raise ValueError(
                f"{path}: column {name!r} is constant ({least:g} in all {n} training rows); "
                "expected values that vary, leave the column out or make it a context"
            )
        raise ValueError(
            f"{path}: column {name!r} is {least:.10g} nearly everywhere, its differences too "
            "small for float32; expected values nearer to zero, subtract an offset first"
        )
