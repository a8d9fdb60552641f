"""Parquet files as one stream: row groups are read one after another, others are skipped."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from .source import ROWS, Source, Types, one_line_errors


def index_columns(schema: pa.Schema) -> tuple[str, ...]:
    """The columns that pandas wrote beside those of a frame: its row index.

    pandas' own metadata name them. A table that has lost these may still have their usual names.
    """
    told = (schema.pandas_metadata or {}).get("index_columns", ())
    return tuple(
        name for name in schema.names if name in told or re.fullmatch(r"__index_level_\d+__", name)
    )


def named(index: Collection[str]) -> tuple[str, ...]:
    """The columns of an index that were given a name."""
    return tuple(name for name in index if not re.fullmatch(r"__\w+__", name))


class Group(NamedTuple):
    """A row group of a file: its number there, its first row in the table, and the row after it."""

    file: Path
    number: int
    start: int
    end: int


class ParquetSource(Source):
    """One Parquet file, or several that are one table.

    The row index of pandas is none of its `names`, and is read only if it is asked for.
    """

    def __init__(self, path: Path, files: tuple[Path, ...]) -> None:
        self.path = path
        self._groups: list[Group] = []
        self._count = 0
        schemas: list[Any] = []
        index: dict[str, None] = {}
        for file in files:
            with one_line_errors(file), pq.ParquetFile(file) as opened:
                schema, metadata = opened.schema_arrow, opened.metadata
                for number in range(metadata.num_row_groups):
                    start, rows = self._count, metadata.row_group(number).num_rows
                    self._groups.append(Group(file, number, start, start + rows))
                    self._count += rows
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
                f"the row index of a pandas frame is left out: {', '.join(told)}; to have it as a "
                "column, write the frame after reset_index()",
            )
        with one_line_errors(path, "a column has different types in different files"):
            self._schema = pa.unify_schemas(schemas, promote_options="permissive")

    def count(self) -> int:
        return self._count

    def pieces(self) -> list[int]:
        pieces = [0]
        for group in self._groups:
            # Small row groups are read together.
            if group.start - pieces[-1] >= ROWS:
                pieces.append(group.start)
        return pieces

    def place(self, row: int) -> tuple[Path, int]:
        file = next(group.file for group in self._groups if row < group.end)
        first = next(group.start for group in self._groups if group.file == file)
        return file, row - first + 1

    def types(self, columns: Sequence[str], given: Types | None = None) -> pa.Schema:
        return pa.schema([self._schema.field(name) for name in columns])

    def _read(
        self, columns: tuple[str, ...], types: Types, rows: int, first: int, last: int | None
    ) -> Iterator[pa.RecordBatch]:
        last = self._count if last is None else last
        schema = self.types(columns)
        wanted = (group for group in self._groups if group.start < last and first < group.end)
        for file, some in groupby(wanted, key=lambda group: group.file):
            groups = list(some)
            skipped = max(first - groups[0].start, 0)
            left = last - groups[0].start - skipped
            # Buffering ahead would hold whole files, and without a buffer size a whole column of a
            # group.
            with (
                one_line_errors(file),
                pq.ParquetFile(file, pre_buffer=False, buffer_size=2**18) as opened,
            ):
                numbers = [group.number for group in groups]
                for batch in opened.iter_batches(rows, row_groups=numbers, columns=list(columns)):
                    part = batch.slice(min(skipped, batch.num_rows), left)
                    skipped = max(0, skipped - batch.num_rows)
                    left -= part.num_rows
                    arrays = [part.column(name).cast(schema.field(name).type) for name in columns]
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)
