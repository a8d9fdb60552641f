"""Tables of numbers, CSV and Parquet: read in blocks and checked cell by cell."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import torch
from torch import Tensor

from .dataset import Dataset, Split

READABLE = (".csv", ".parquet")
ROWS = 65_536  # a block: large enough to be fast, small beside any machine's memory


def open_table(
    path: str | os.PathLike[str],
    *,
    context: Sequence[str] = (),
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Opens your own table as a data set, its rows dealt at random into three splits.

    Every column must hold finite numbers; integers are read as floats. A context column may be
    constant, a feature may not: its density would be infinite.

    Args:
        path: A `.csv` (with a header) or `.parquet` file.
        context: The columns to condition on; the others are the features.
        validation: The fraction of the rows that validates, in [0, 1).
        test: The fraction of the rows that tests, in [0, 1).
        seed: Which rows go where.

    Returns:
        The data set, in float32 and the table's own units.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, a cell is no finite number (the message names its
            column and row), a context column is unknown, a feature is constant, or rows are few.

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
    names = column_names(path)
    context = _known(context, names, path, "context")
    features = tuple(name for name in names if name not in context)
    if not features:
        raise ValueError(f"context: takes all columns of {path}, none is left to model")
    x = read_table(path, (*features, *context))
    sizes = int(validation * len(x)), int(test * len(x))
    for argument, fraction, size in zip(
        ("validation", "test"), (validation, test), sizes, strict=True
    ):
        if fraction and not size:
            raise ValueError(
                f"{argument}: {fraction} of the {len(x)} rows of {path} is less than one row"
            )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    parts = order.split([len(x) - sum(sizes), *sizes])
    train, validation_split, test_split = (
        Split(x[rows, : len(features)], x[rows, len(features) :] if context else None)
        for rows in parts
    )
    check_varying(train.x, features, path)
    return Dataset(path.stem, train, validation_split, test_split, features, context)


def column_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of a table's columns, in the file's order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or names are missing or given twice.
    """
    path = _existing(path)
    with one_line_errors(path):
        if path.suffix == ".parquet":
            names = pq.read_schema(path).names
        else:
            with pacsv.open_csv(path) as reader:
                names = reader.schema.names
    for i, name in enumerate(names):
        if not name:
            raise ValueError(
                f"{path}: column {i + 1} has no name (a saved row index?); expected a header with "
                "a name for each column"
            )
        if name in names[:i]:
            raise ValueError(f"{path}: expected each column name once, found {name!r} twice")
    return tuple(names)


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
        path: A `.csv` or `.parquet` file.
        columns: The columns wanted, in the order wanted.
        rows: The most rows in a block.

    Yields:
        The next rows in the file's order, float32, shape `(<= rows, columns)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, a column is unknown, or a cell is no finite number;
            the message names the column and the row, counted from 1 below the header.
    """
    path = _existing(path)
    if rows < 1:
        raise ValueError(f"rows: expected at least one row in a block, got {rows}")
    names = column_names(path)
    columns = names if columns is None else _known(columns, names, path, "columns")
    start = 0
    for batch in _record_batches(path, columns, rows):
        for offset in range(0, batch.num_rows, rows):
            block = batch.slice(offset, rows)
            yield _numbers(block, columns, start, path)
            start += block.num_rows


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise ValueError(f"{path}: expected a {' or '.join(READABLE)} file, found a folder")
    if path.suffix not in READABLE:
        raise ValueError(f"{path}: expected a file ending in {' or '.join(READABLE)}")
    return path


def _known(
    wanted: Sequence[str], names: tuple[str, ...], path: Path, argument: str
) -> tuple[str, ...]:
    for i, name in enumerate(wanted):
        if name not in names:
            raise ValueError(
                f"{argument}: {path} has no column {name!r}; its columns are {', '.join(names)}"
            )
        if name in wanted[:i]:
            raise ValueError(f"{argument}: column {name!r} is given twice")
    return tuple(wanted)


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turns pyarrow's complaints, some of which print whole rows, into one line about the file."""
    try:
        yield
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: cannot be read as {path.suffix[1:]}: {reason}") from None


def _record_batches(path: Path, columns: tuple[str, ...], rows: int) -> Iterator[pa.RecordBatch]:
    with one_line_errors(path):
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=rows, columns=list(columns))
            return
        try:
            # Types are declared: inferred ones come from the first block, where a column of
            # floats may look like integers, or be empty.
            yield from _csv_batches(path, columns, pa.float64())
        except pa.ArrowInvalid:
            _raise_for_first_bad_cell(path, columns)
            raise


def _csv_batches(
    path: Path, columns: tuple[str, ...], kind: pa.DataType
) -> Iterator[pa.RecordBatch]:
    convert = pacsv.ConvertOptions(
        include_columns=columns, column_types=dict.fromkeys(columns, kind)
    )
    with pacsv.open_csv(path, convert_options=convert) as reader:
        yield from reader


def _raise_for_first_bad_cell(path: Path, columns: tuple[str, ...]) -> None:
    start = 1
    for batch in _csv_batches(path, columns, pa.string()):
        for name in columns:
            cells = batch.column(batch.schema.get_field_index(name))
            try:
                pc.cast(cells, pa.float64())
            except pa.ArrowInvalid:
                for row, cell in enumerate(cells.to_pylist(), start):
                    try:
                        float(cell)
                    except ValueError:
                        raise ValueError(
                            f"{path}: column {name!r}, row {row}: expected a number, found {cell!r}"
                        ) from None
        start += batch.num_rows


def _numbers(batch: pa.RecordBatch, columns: tuple[str, ...], start: int, path: Path) -> Tensor:
    """Turns a block into float32 and makes sure that every cell is a finite number."""
    block = np.empty((batch.num_rows, len(columns)), np.float32)
    for i, name in enumerate(columns):
        cells = batch.column(batch.schema.get_field_index(name))
        kind = cells.type
        if not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        ):
            raise ValueError(f"{path}: column {name!r}: expected numbers, found type {kind}")
        if cells.null_count:
            row = start + 1 + int(pc.index(cells.is_null(), True).as_py())
            raise ValueError(
                f"{path}: column {name!r}, row {row}: expected a finite number, "
                "found a missing value (empty, NA or nan)"
            )
        with np.errstate(over="ignore"):
            block[:, i] = cells.cast(pa.float64(), safe=False).to_numpy()
        finite = np.isfinite(block[:, i])
        if not finite.all():
            row = int(np.argmin(finite))
            raise ValueError(
                f"{path}: column {name!r}, row {start + 1 + row}: expected a finite number within "
                f"the range of float32, found {cells[row].as_py()}"
            )
    return torch.from_numpy(block)


def check_varying(x: Tensor, columns: tuple[str, ...], path: Path) -> None:
    """Refuses features without spread, and those whose spread float32 cannot show."""
    for name, column in zip(columns, x.unbind(1), strict=True):
        low, high = column.min().item(), column.max().item()
        size = max(abs(low), abs(high))
        if high - low > 1000 * torch.finfo(torch.float32).eps * size:
            continue
        if low == high and size < 2**24:
            raise ValueError(
                f"{path}: column {name!r} is constant ({low:g} in all {len(x)} training rows); "
                "expected values that vary, leave the column out or make it a context"
            )
        raise ValueError(
            f"{path}: column {name!r} is {low:.10g} nearly everywhere, its differences too "
            "small for float32; expected values nearer to zero, subtract an offset first"
        )
