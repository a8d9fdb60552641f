"""Columns of numbers, checked cell by cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from .arrow_types import is_number
from .source import ROWS, CellError, Fault, Source

MISSING = "a missing value (empty, NA or nan)"
"""What is found where a cell is missing."""


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
    """Turns columns of rows from `start` of a source on into a tensor `(rows, columns)`."""
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
    """Reads columns of numbers as :meth:`Source.batches`, with the number of each first row."""
    for batch in source.batches(columns, floats(columns), rows=rows, first=first, last=last):
        yield first, numbers(batch, columns, source, first, dtype)
        first += batch.num_rows


def weights_of(source: Source, table: pa.Table | None = None) -> Tensor | None:
    """How much each row of a source counts, float64, shape (n,); None if it says nothing of it.

    Args:
        source: The source.
        table: Its columns, where they have been read already.

    Raises:
        ValueError: If a weight is no finite number, or negative, or all are 0; the message names
            column and row.
    """
    name = source.weights
    if name is None:
        return None
    try:
        if table is None or name not in table.column_names or not is_number(table[name].type):
            table = source.table((name,), floats((name,)))
        weights = check_numbers(table.column(name), name, source)
        if (weights < 0).any():
            row = int((weights < 0).argmax())
            raise source.cell_error(name, row, "a weight, 0 or more", f"{weights[row]:g}")
    except CellError as error:  # what helps about other cells does not here
        raise ValueError(str(error)) from None
    if not weights.any():
        raise ValueError(f"{source.path}: column {name!r}: expected a weight above 0, found none")
    return torch.from_numpy(weights.copy())


def check_numbers(
    cells: pa.Array | pa.ChunkedArray,
    name: str,
    source: Source,
    start: int = 0,
    *,
    finite: bool = True,
) -> NDArray[np.float64]:
    """A column as float64, NaN where it is missing."""
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
