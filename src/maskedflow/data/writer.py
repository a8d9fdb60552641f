"""Scores and samples to CSV, Parquet or NumPy files, block by block and atomically."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

Block = NDArray[Any]


def write_table(
    path: str | os.PathLike[str], columns: Sequence[str], batches: Iterable[Tensor]
) -> int:
    """Writes blocks of rows to a `.csv`, `.parquet` or `.npy` file, in constant memory.

    The file appears under its name only when it is complete. `.npy` keeps no column names.

    Args:
        path: The file to write; one that is there is replaced.
        columns: A name for each column.
        batches: Blocks of rows, each of shape `(n, columns)` and all of one dtype.

    Returns:
        The number of rows written.

    Raises:
        ValueError: If the suffix is none of these, or a block has another shape or dtype.
        FileNotFoundError: If the folder does not exist.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "scores.csv"
        >>> write_table(path, ["log_prob"], [torch.tensor([[0.5], [0.25]])])
        2
        >>> path.read_text().split()
        ['log_prob', '0.5', '0.25']
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise ValueError(f"{path}: expected a file ending in {', '.join(_WRITERS)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent} to write it in")
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, found a folder")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        written = _WRITERS[path.suffix](partial, columns, _checked(batches, len(columns)))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return written


def _checked(batches: Iterable[Tensor], width: int) -> Iterator[Block]:
    dtype: torch.dtype | None = None
    for batch in batches:
        if batch.ndim != 2 or batch.shape[1] != width:
            raise ValueError(
                f"batches: expected shape (n, {width}), one column a name, got {tuple(batch.shape)}"
            )
        if dtype not in (None, batch.dtype):
            raise ValueError(f"batches: expected all of {dtype}, got {batch.dtype}")
        dtype = batch.dtype
        yield batch.detach().cpu().numpy()


def _first(blocks: Iterator[Block], width: int) -> tuple[Block, Iterator[Block]]:
    """The first block, which tells the dtype, and all blocks; no blocks make one without rows."""
    first = next(blocks, np.empty((0, width), np.float32))
    return first, chain((first,), blocks)


def _arrow(columns: Sequence[str], block: Block) -> pa.RecordBatch:
    arrays = [pa.array(np.ascontiguousarray(column)) for column in block.T]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _write_csv(path: Path, columns: Sequence[str], blocks: Iterator[Block]) -> int:
    with path.open("w", newline="", encoding="utf-8") as file:  # pyarrow would quote every name
        csv.writer(file, lineterminator="\n").writerow(columns)
    written = 0
    with path.open("ab") as sink:
        for block in blocks:
            options = pacsv.WriteOptions(include_header=False)
            pacsv.write_csv(_arrow(columns, block), sink, options)
            written += len(block)
    return written


def _write_parquet(path: Path, columns: Sequence[str], blocks: Iterator[Block]) -> int:
    first, blocks = _first(blocks, len(columns))
    written = 0
    with pq.ParquetWriter(path, _arrow(columns, first).schema) as writer:
        for block in blocks:
            writer.write_batch(_arrow(columns, block))
            written += len(block)
    return written


def _write_npy(path: Path, columns: Sequence[str], blocks: Iterator[Block]) -> int:
    first, blocks = _first(blocks, len(columns))
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (0, len(columns)),
    }
    written = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for block in blocks:
            file.write(np.ascontiguousarray(block).tobytes())
            written += len(block)
        # The number of rows is known only now; NumPy leaves room for it in the header.
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (written, len(columns))})
        assert file.tell() == start
    return written


_WRITERS: dict[str, Callable[[Path, Sequence[str], Iterator[Block]], int]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".npy": _write_npy,
}
