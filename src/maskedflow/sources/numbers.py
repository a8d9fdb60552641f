"""Columns of numbers, checked cell by cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from .source import ROWS, CellError, Fault, Source

__all__ = ["blocks", "check_numbers", "floats", "is_number", "numbers"]


MISSING = "a missing value (empty, NA or nan)"
"""What is found where a cell is missing."""


def is_number(kind: pa.DataType) -> bool:
    """Whether cells of this type are integers, floats or decimals."""
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def floats(columns: Sequence[str]) -> dict[str, pa.DataType]:
    """The Arrow types in which columns of numbers are read."""
    return dict.fromkeys(columns, pa.float64())


def numbers(
    table: pa.Table | pa.RecordBatch,
    columns: Sequence[str],
    source: Source,
    start: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Turns columns of numbers into a tensor, shape `(rows, columns)`.

    Args:
        table: Some rows.
        columns: The columns wanted, in the order wanted.
        source: The table that they are of.
        start: The number of the first row in it.
        dtype: float32 or float64.

    Raises:
        CellError: If a cell is no finite number.
    """
    rows = np.empty((table.num_rows, len(columns)), str(dtype).removeprefix("torch."))
    for i, name in enumerate(columns):
        rows[:, i] = check_numbers(table.column(name), name, source, start)
    return torch.from_numpy(rows)


def blocks(
    source: Source,
    columns: Sequence[str],
    dtype: torch.dtype = torch.float32,
    *,
    rows: int = ROWS,
    first: int = 0,
    last: int | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Reads columns of numbers block by block, each with the number of its first row.

    See :meth:`Source.batches` and :func:`numbers`.
    """
    for batch in source.batches(columns, floats(columns), rows=rows, first=first, last=last):
        yield first, numbers(batch, columns, source, first, dtype)
        first += batch.num_rows


def check_numbers(
    cells: pa.Array | pa.ChunkedArray,
    name: str,
    source: Source,
    start: int = 0,
    *,
    finite: bool = True,
) -> NDArray[np.float64]:
    """A column as float64, within the range of float32, and no whole number rounded.

    Args:
        cells: The cells.
        name: The column.
        source: The table, whose text tells of a large number whether it is whole.
        start: The number of the first cell's row in it.
        finite: Whether all have to be; if not they may be infinite, or missing, which are NaN then.

    Raises:
        CellError: If a cell is another one.
    """
    if pa.types.is_null(cells.type):
        cells = cells.cast(pa.float64())
    if not is_number(cells.type):
        raise CellError(source.path, name, None, "numbers", f"type {cells.type}", "kind")
    x: NDArray[np.float64] = cells.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
    with np.errstate(over="ignore"):
        within = np.isfinite(x.astype(np.float32))
    if not finite:
        within |= ~np.isfinite(x)
    good = within & ~_rounded(cells, x, name, source, start)
    if good.all():
        return x
    bad = int(np.argmin(good))
    found, valid = cells[bad].as_py(), cells[bad].is_valid
    if not valid:
        expected, told = "a finite number", MISSING
    elif not within[bad]:
        expected, told = "a finite number within the range of float32", str(found)
    else:
        expected = "a number of at most 15 digits"
        digits = f"{found:.0f}" if isinstance(found, float) else found
        told = f"{digits}, whose last digits would be lost"
    fault: Fault = "notation" if valid else "missing"
    raise source.cell_error(name, start + bad, expected, told, fault)


def _rounded(
    cells: pa.Array | pa.ChunkedArray, x: NDArray[np.float64], name: str, source: Source, start: int
) -> NDArray[np.bool_]:
    """Which numbers are whole ones that float64 may have rounded."""
    large = np.isfinite(x) & (np.abs(x) >= 2.0**53)
    kind = cells.type
    if not large.any():
        return large
    whole = pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0)
    if pa.types.is_floating(kind):
        cell = source.text(name, start + int(np.argmax(large)))
        whole = cell is not None and cell.strip().lstrip("+-").isdecimal()
    return large if whole else np.zeros_like(large)
