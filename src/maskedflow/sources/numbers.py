"""Blocks of a table as tensors of finite numbers, checked cell by cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from .source import CellError, Source

__all__ = ["are_exact", "floats", "numbers"]


def floats(columns: Sequence[str]) -> dict[str, pa.DataType]:
    """The Arrow types in which columns of numbers are read."""
    return dict.fromkeys(columns, pa.float64())


def numbers(
    batch: pa.RecordBatch,
    columns: Sequence[str],
    source: Source,
    start: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Turns columns of a block into numbers.

    Args:
        batch: The block.
        columns: The columns wanted, in the order wanted.
        source: The table that it is of.
        start: The number of its first row in the table.
        dtype: float32 or float64.

    Raises:
        ValueError: If a cell is no finite number; the message names file, column and row.
    """
    block = np.empty((batch.num_rows, len(columns)))
    for i, name in enumerate(columns):
        cells = batch.column(name)
        kind = cells.type
        if not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        ):
            raise CellError(
                f"{source.path}: column {name!r}: expected numbers, found type {kind}", "kind"
            )
        block[:, i] = cells.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
        with np.errstate(over="ignore"):
            finite = np.isfinite(block[:, i].astype(np.float32))
        good = finite & are_exact(cells, block[:, i], name, source, start)
        if good.all():
            continue
        bad = int(np.argmin(good))
        path, row = source.place(start + bad)
        if not cells[bad].is_valid:
            expected, found = "a finite number", "a missing value (empty, NA or nan)"
        elif not finite[bad]:
            expected = "a finite number within the range of float32"
            found = str(cells[bad].as_py())
        else:
            expected = "a number of at most 15 digits"
            value = cells[bad].as_py()
            digits = f"{value:.0f}" if isinstance(value, float) else value
            found = f"{digits}, whose last digits would be lost"
        raise CellError(
            f"{path}: column {name!r}, row {row}: expected {expected}, found {found}",
            "notation" if cells[bad].is_valid else "missing",
        )
    return torch.from_numpy(block).to(dtype)


def are_exact(
    cells: pa.Array | pa.ChunkedArray, x: NDArray[np.float64], name: str, source: Source, start: int
) -> NDArray[np.bool_]:
    """Which numbers are no whole numbers that float64 may have rounded.

    Args:
        cells: The cells, as they were read.
        x: The numbers.
        name: The column's name.
        source: The table, whose text tells of a large number whether it is whole.
        start: The number of the first cell's row in the table.
    """
    large = np.abs(x) >= 2.0**53
    if not large.any():
        return ~large
    kind = cells.type
    whole = pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0)
    if pa.types.is_floating(kind):
        cell = source.text(name, start + int(np.argmax(large)))
        whole = cell is not None and cell.strip().lstrip("+-").isdecimal()
    return ~large if whole else np.ones_like(large)
