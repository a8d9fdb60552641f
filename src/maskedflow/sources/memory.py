"""Tables in memory as sources, for what is computed of files block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from .source import ROWS, Source, Types


class TableSource(Source):
    """A table of Arrow's, whose buffers are read as they are.

    Args:
        table: The table.
        name: What errors call it.

    Example:
        >>> source = TableSource(pa.table({"a": [1, 2, 3]}))
        >>> [batch.to_pydict() for batch in source.batches(["a"], rows=2)]
        [{'a': [1, 2]}, {'a': [3]}]
    """

    def __init__(self, table: pa.Table, name: str = "table") -> None:
        self._table = table
        self.path, self.names = Path(name), tuple(table.column_names)

    def count(self) -> int:
        return int(self._table.num_rows)

    def pieces(self) -> list[int]:
        return list(range(0, max(1, self.count()), ROWS))

    def place(self, row: int) -> tuple[Path, int]:
        return self.path, row + 1

    def types(self, columns: Sequence[str], given: Types | None = None) -> pa.Schema:
        return pa.schema([self._table.schema.field(name) for name in columns])

    def _read(
        self, columns: tuple[str, ...], types: Types, rows: int, first: int, last: int | None
    ) -> Iterator[pa.RecordBatch]:
        part = self._table.select(list(columns)).slice(
            first, None if last is None else last - first
        )
        yield from part.to_batches(rows)
