"""Tables written block by block, beside their place and then moved into it."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.files import atomic

from .arrow_types import is_text
from .source import one_line_errors

GROUP = 2**22
"""Bytes of a row group, at least: small ones would make a Parquet file's list of them long."""

Batches = Iterator[pa.RecordBatch]


def write_table(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    batches: Iterable[Tensor],
    *,
    header: bool = True,
) -> int:
    """Writes blocks of rows to a `.csv`, `.parquet` or `.npy` file, in constant memory.

    The file appears under its name only when it is complete. `.npy` keeps no column names.

    Args:
        path: The file to write; one that is there is replaced.
        columns: A name for each column.
        batches: Blocks of rows, each of shape `(n, columns)` and all of one dtype.
        header: Whether a CSV file begins with the names; a later part of a table has none.

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
    blocks = _checked(batches, len(columns))
    first = next(blocks, np.empty((0, len(columns)), np.float32))  # tells the dtype
    schema = pa.schema([(name, pa.from_numpy_dtype(first.dtype)) for name in columns])
    batches_of_arrow = (
        pa.RecordBatch.from_arrays([*map(pa.array, block.T.copy())], schema=schema)
        for block in chain((first,), blocks)
    )
    return write_batches(path, schema, batches_of_arrow, header=header)


def write_batches(
    path: str | os.PathLike[str],
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    *,
    header: bool = True,
) -> int:
    """Writes Arrow record batches to a `.csv`, `.parquet` or `.npy` file, as :func:`write_table`.

    `.npy` takes numbers of one type. Returns the number of rows written.

    Raises:
        ValueError: If the suffix is none of these, or the format has no place for a column's type.
        FileNotFoundError: If the folder does not exist.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise ValueError(f"{path}: expected a file ending in {', '.join(_WRITERS)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent} to write it in")
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, found a folder")
    failed = f"cannot be written as {path.suffix[1:]}"
    with one_line_errors(path, failed), atomic(path) as beside:
        return _WRITERS[path.suffix](beside, schema, iter(batches), header)


def _checked(batches: Iterable[Tensor], width: int) -> Iterator[NDArray[Any]]:
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


def _write_csv(path: Path, schema: pa.Schema, batches: Batches, header: bool) -> int:
    with path.open("w", newline="", encoding="utf-8") as file:  # pyarrow would quote every name
        if header:
            csv.writer(file, lineterminator="\n").writerow(schema.names)
    texts = [name for name in schema.names if _is_text(schema.field(name).type)]
    written = 0
    with path.open("ab") as sink:
        for batch in batches:
            # pyarrow quotes all text or none.
            quoted = any(pc.any(_special(batch.column(name))).as_py() for name in texts)
            options = pacsv.WriteOptions(
                include_header=False, quoting_style="needed" if quoted else "none"
            )
            pacsv.write_csv(batch, sink, options)
            written += batch.num_rows
    return written


def _is_text(kind: pa.DataType) -> bool:
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _special(cells: pa.Array) -> pa.Array:
    """Whether a cell holds what has a meaning in CSV."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary
    return pc.match_substring_regex(cells, '[",\\r\\n]')


def _write_parquet(path: Path, schema: pa.Schema, batches: Batches, header: bool) -> int:
    written = 0
    waiting: list[pa.RecordBatch] = []
    with pq.ParquetWriter(path, schema) as writer:
        for batch in batches:
            waiting.append(batch)
            written += batch.num_rows
            if sum(part.nbytes for part in waiting) >= GROUP:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
    return written


def _write_npy(path: Path, schema: pa.Schema, batches: Batches, header: bool) -> int:
    kinds = [kind.to_pandas_dtype() for kind in set(schema.types)]
    if len(kinds) != 1 or not np.issubdtype(kinds[0], np.number):
        raise ValueError(f"{path}: expected columns of numbers of one type; write .csv or .parquet")
    start = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(kinds[0])),
        "fortran_order": False,
        "shape": (0, len(schema)),
    }
    written = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, start)
        begin = file.tell()
        for batch in batches:
            file.write(np.column_stack([column.to_numpy() for column in batch.columns]).tobytes())
            written += batch.num_rows
        # The number of rows is known only now; NumPy leaves room for it in the header.
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, start | {"shape": (written, len(schema))})
        assert file.tell() == begin
    return written


_WRITERS: dict[str, Callable[[Path, pa.Schema, Batches, bool], int]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".npy": _write_npy,
}
