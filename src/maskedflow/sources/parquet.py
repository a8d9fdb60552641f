"""Parquet files as one stream: row groups are read one after another, others are skipped."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .source import ROWS, Source, Types, one_line_errors


def index_columns(schema: pa.Schema) -> tuple[str, ...]:
    """The columns that pandas wrote beside those of a frame: its row index.

    pandas' own metadata name them. A table that has lost these may still have their usual names.

    Example:
        >>> index_columns(pa.schema({"a": pa.int8(), "__index_level_0__": pa.int64()}))
        ('__index_level_0__',)
    """
    told = (schema.pandas_metadata or {}).get("index_columns", ())
    return tuple(
        name for name in schema.names if name in told or re.fullmatch(r"__index_level_\d+__", name)
    )


def named(index: Collection[str]) -> tuple[str, ...]:
    """Those columns of an index that somebody has given a name."""
    return tuple(name for name in index if not re.fullmatch(r"__\w+__", name))


class ParquetSource(Source):
    """One Parquet file, or several that are one table.

    The row index of pandas is none of its `names`, and is read only if it is asked for.

    Args:
        path: The file, or the folder of the files.
        files: The files in order.

    Raises:
        ValueError: If one cannot be read, or has not the columns of the first.
    """

    def __init__(self, path: Path, files: tuple[Path, ...]) -> None:
        self.path, self._files = path, files
        self._starts = [0]  # the first row of each file, and the number of all rows
        schemas: list[Any] = []
        index: dict[str, None] = {}
        for file in files:
            with one_line_errors(file), pq.ParquetFile(file) as opened:
                schema = opened.schema_arrow
                self._starts.append(self._starts[-1] + opened.metadata.num_rows)
            schemas.append(schema.remove_metadata())
            index |= dict.fromkeys(index_columns(schema))
            names = tuple(name for name in schema.names if name not in index)
            if file == files[0]:
                self.names = names
            elif set(names) != set(self.names):
                raise ValueError(
                    f"{file}: expected the columns of {files[0].name}, "
                    f"{', '.join(self.names)}; found {', '.join(names)}"
                )
        self.index = tuple(name for name in index if all(name in one.names for one in schemas))
        if not self.names:
            raise ValueError(f"{path}: expected at least one column, found none")
        if told := named(index):
            self.notes = (
                f"left out, the row index of a frame of pandas: {', '.join(told)}; to have it as a "
                "column, write the frame after reset_index()",
            )
        try:
            self._schema = pa.unify_schemas(schemas, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{path}: a column has one type here and one there: {reason}"
            ) from None

    def count(self) -> int:
        return self._starts[-1]

    def estimate(self) -> int:
        return self._starts[-1]

    def pieces(self) -> list[int]:
        pieces = [0]
        for file, start in zip(self._files, self._starts, strict=False):
            with pq.ParquetFile(file) as opened:
                for group_start, _ in _groups(opened):
                    # Small row groups are read together.
                    if start + group_start - pieces[-1] >= ROWS:
                        pieces.append(start + group_start)
        return pieces

    def place(self, row: int) -> tuple[Path, int]:
        which = bisect_right(self._starts, row, hi=len(self._files)) - 1
        return self._files[which], row - self._starts[which] + 1

    def types(self, columns: Sequence[str], given: Types | None = None) -> pa.Schema:
        return pa.schema([self._schema.field(name) for name in columns])

    def _read(
        self, columns: tuple[str, ...], types: Types, rows: int, first: int, last: int | None
    ) -> Iterator[pa.RecordBatch]:
        last = self.count() if last is None else last
        schema = self.types(columns)
        for file, (start, end) in zip(self._files, pairwise(self._starts), strict=True):
            if start < last and first < end:
                part = max(first - start, 0), min(last, end) - start
                with one_line_errors(file):
                    for batch in _read_file(file, columns, rows, *part):
                        arrays = [
                            batch.column(name).cast(schema.field(name).type) for name in columns
                        ]
                        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _read_file(
    file: Path, columns: tuple[str, ...], rows: int, first: int, last: int
) -> Iterator[pa.RecordBatch]:
    # Buffering ahead would hold whole files, and without a buffer size a whole column of a group.
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=2**18) as opened:
        groups = [
            (number, start)
            for number, (start, end) in enumerate(_groups(opened))
            if start < last and first < end
        ]
        if not groups:
            return
        skipped, left = first - groups[0][1], last - first
        numbers = [number for number, _ in groups]
        for batch in opened.iter_batches(rows, row_groups=numbers, columns=list(columns)):
            part = batch.slice(min(skipped, batch.num_rows), left)
            skipped = max(0, skipped - batch.num_rows)
            left -= part.num_rows
            yield part


def _groups(opened: Any) -> Iterator[tuple[int, int]]:
    """The first row of each row group, and the row after it."""
    end = 0
    for number in range(opened.metadata.num_row_groups):
        start, end = end, end + opened.metadata.row_group(number).num_rows
        yield start, end
