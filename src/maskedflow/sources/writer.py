"""Tables written block by block, beside their place and then moved into it."""

from __future__ import annotations

import csv
import gzip
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

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
from .unpacked import STDIN

GROUP = 2**22
"""Bytes of a row group, at least: small ones would make a Parquet file's list of them long."""

Batches = Iterator[pa.RecordBatch]
Writer = Callable[[IO[bytes], pa.Schema, Batches, bool], int]


def write_table(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    batches: Iterable[Tensor],
    *,
    header: bool = True,
) -> int:
    """Writes blocks of rows to a `.csv`, `.tsv`, `.parquet` or `.npy` file, in constant memory.

    The file appears under its name only when it is complete, and missing folders are made. `.npy`
    keeps no column names. Text is UTF-8 with decimal points, compressed if the name ends in `.gz`,
    and goes to standard output if it is `-`.

    Args:
        path: The file to write; one that is there is replaced.
        columns: A name for each column.
        batches: Blocks of rows, each of shape `(n, columns)` and all of one dtype.
        header: Whether a CSV file begins with the names; a later part of a table has none.

    Returns:
        The number of rows written.

    Raises:
        ValueError: If the suffix is none of these, or a block has another shape or dtype.

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
    """Writes Arrow record batches to a file, as :func:`write_table`.

    `.npy` takes numbers of one type. Returns the number of rows written.

    Raises:
        ValueError: If the suffix is none of these, or the format has no place for a column's type.
    """
    path = Path(path)
    if path == STDIN:
        return _write_csv(sys.stdout.buffer, schema, iter(batches), header)
    ending = next(filter(path.name.endswith, _WRITERS), None)
    if ending is None:
        raise ValueError(f"{path}: expected a file ending in {', '.join(_WRITERS)}")
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, found a folder")
    if ending == ".npy" and _number(schema) is None:
        raise ValueError(f"{path}: expected columns of numbers of one type; write .csv or .parquet")
    failed = f"cannot be written as {ending[1:]}"
    with one_line_errors(path, failed), atomic(path) as beside, beside.open("r+b") as sink:
        return _WRITERS[ending](sink, schema, iter(batches), header)


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


def _write_csv(
    sink: IO[bytes], schema: pa.Schema, batches: Batches, header: bool, delimiter: str = ","
) -> int:
    if header:  # pyarrow would quote every name
        names = io.StringIO()
        csv.writer(names, delimiter=delimiter, lineterminator="\n").writerow(schema.names)
        sink.write(names.getvalue().encode())
    texts = [name for name in schema.names if _is_text(schema.field(name).type)]
    written = 0
    for batch in batches:
        # pyarrow quotes all text or none.
        quoted = any(pc.any(_special(batch.column(name), delimiter)).as_py() for name in texts)
        options = pacsv.WriteOptions(
            include_header=False,
            delimiter=delimiter,
            quoting_style="needed" if quoted else "none",
        )
        pacsv.write_csv(batch, sink, options)
        written += batch.num_rows
    return written


_write_tsv = partial(_write_csv, delimiter="\t")


def _packed(write: Writer) -> Writer:
    """Writes the same, compressed; what is written twice is the same twice, without a date."""

    def packed(sink: IO[bytes], schema: pa.Schema, batches: Batches, header: bool) -> int:
        with gzip.GzipFile("", "wb", fileobj=sink, mtime=0) as file:
            return write(cast(IO[bytes], file), schema, batches, header)

    return packed


def _is_text(kind: pa.DataType) -> bool:
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _special(cells: pa.Array, delimiter: str) -> pa.Array:
    """Whether a cell holds what has a meaning in CSV."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary
    return pc.match_substring_regex(cells, f'["{delimiter}\\r\\n]')


def _write_parquet(sink: IO[bytes], schema: pa.Schema, batches: Batches, header: bool) -> int:
    written = 0
    waiting: list[pa.RecordBatch] = []
    with pq.ParquetWriter(sink, schema) as writer:
        for batch in batches:
            waiting.append(batch)
            written += batch.num_rows
            if sum(part.nbytes for part in waiting) >= GROUP:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
    return written


def _number(schema: pa.Schema) -> type[np.number[Any]] | None:
    """The type of all columns, if there is one, and it is of numbers."""
    kinds = [kind.to_pandas_dtype() for kind in set(schema.types)]
    return kinds[0] if len(kinds) == 1 and np.issubdtype(kinds[0], np.number) else None


def _write_npy(sink: IO[bytes], schema: pa.Schema, batches: Batches, header: bool) -> int:
    kind = _number(schema)
    assert kind is not None
    start = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(kind)),
        "fortran_order": False,
        "shape": (0, len(schema)),
    }
    written = 0
    np.lib.format.write_array_header_1_0(sink, start)
    begin = sink.tell()
    for batch in batches:
        sink.write(np.column_stack([column.to_numpy() for column in batch.columns]).tobytes())
        written += batch.num_rows
    # The number of rows is known only now; NumPy leaves room for it in the header.
    sink.seek(0)
    np.lib.format.write_array_header_1_0(sink, start | {"shape": (written, len(schema))})
    assert sink.tell() == begin
    return written


_WRITERS: dict[str, Writer] = {
    ".csv": _write_csv,
    ".tsv": _write_tsv,
    ".csv.gz": _packed(_write_csv),
    ".tsv.gz": _packed(_write_tsv),
    ".parquet": _write_parquet,
    ".npy": _write_npy,
}
