"""Tables on disk as streams of Arrow record batches, whatever kind of file they are in.

Whatever the table's size, only a few blocks of it are in memory. Blocks of `rows` rows are cut at
multiples of `rows` from where reading begins, not where a file, a row group or a buffer ends: so a
piece of a table that begins at such a multiple comes in the blocks that the whole would come in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

import pyarrow as pa

from .unpacked import STDIN

ROWS = 65_536  # a block: large enough to be fast, small beside any machine's memory

Types = Mapping[str, pa.DataType]

_COMPLAINTS = (
    pa.ArrowInvalid,
    pa.ArrowKeyError,
    pa.ArrowNotImplementedError,
    pa.ArrowTypeError,
    UnicodeDecodeError,
)

Fault = Literal["missing", "kind", "notation", "bounds"]
"""Whether a cell is missing, of another kind, of a wrong size or notation, or out of bounds."""


class CellError(ValueError):
    """A cell of a table that does not fit its column; rows are counted from 1.

    The row is None if the error is about the whole column.

    Example:
        >>> print(CellError(Path("a.csv"), "age", 3, "a number", "'old'", "kind"))
        a.csv: column 'age', row 3: expected a number, found 'old'
    """

    def __init__(
        self,
        path: Path,
        column: str,
        row: int | None,
        expected: str,
        found: str,
        fault: Fault = "notation",
    ) -> None:
        super().__init__(path, column, row, expected, found, fault)
        self.path, self.column, self.row = path, column, row
        self.expected, self.found, self.fault = expected, found, fault

    def __str__(self) -> str:
        where = f"column {self.column!r}" + ("" if self.row is None else f", row {self.row}")
        return f"{self.path}: {where}: expected {self.expected}, found {self.found}"


class Source(ABC):
    """A table on disk.

    Attributes:
        path: The file, or the folder.
        names: The names of its columns.
        index: Columns beside these that are read only if they are asked for: a row index, weights,
            a log-likelihood.
        notes: How it is read where that had to be guessed, a sentence each.
        weights: The column of how much each row counts, if the file says that there is one.
        bounds: The lowest and highest value of columns, infinite without an end, that the file
            itself gives, as those of a prior.
        is_typed: Whether columns have types of their own; those of a CSV file are text.
    """

    path: Path
    names: tuple[str, ...]
    index: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    weights: str | None = None
    bounds: Mapping[str, tuple[float, float]] = MappingProxyType({})
    is_typed: bool = True

    @property
    def name(self) -> str:
        """What the table is called."""
        return table_name(self.path)

    @abstractmethod
    def count(self) -> int:
        """The number of rows: Parquet stores it, the lines of a CSV file are counted once."""

    def estimate(self) -> int:
        """About the number of rows, at once."""
        return self.count()

    @abstractmethod
    def pieces(self) -> list[int]:
        """Rows at which reading may begin cheaply, in order; 0 is the first of them."""

    @abstractmethod
    def place(self, row: int) -> tuple[Path, int]:
        """The file that holds a row, and the row's number in that file from 1, for errors."""

    def text(self, column: str, row: int) -> str | None:
        """A cell as it is written in a CSV file, whose rows count from 0; None of Parquet."""
        return None

    @abstractmethod
    def types(self, columns: Sequence[str], given: Types | None = None) -> pa.Schema:
        """The types of columns in :meth:`batches`: Parquet's own; those given, or text, of CSV."""

    def batches(
        self,
        columns: Sequence[str],
        types: Types | None = None,
        *,
        rows: int = ROWS,
        first: int = 0,
        last: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Reads columns block by block, in constant memory.

        Args:
            columns: The columns wanted, in the order wanted.
            types: The Arrow types of columns in a CSV file; text where there is none. Parquet has
                its own.
            rows: The rows of a block; the last one may have fewer.
            first: The first row.
            last: The row to end before; to the end of the table if None.

        Raises:
            ValueError: If the file is damaged, or a cell of a CSV file has another type.
        """
        return _cut(self._read(tuple(columns), types or {}, rows, first, last), rows)

    def table(self, columns: Sequence[str], types: Types | None = None) -> pa.Table:
        """Reads columns whole; the type of a CSV column that is not given is told from all cells.

        Raises:
            ValueError: As :meth:`batches`.
        """
        return pa.Table.from_batches(self.batches(columns), schema=self.types(columns))

    @abstractmethod
    def _read(
        self, columns: tuple[str, ...], types: Types, rows: int, first: int, last: int | None
    ) -> Iterator[pa.RecordBatch]:
        """The rows in batches as they come."""

    def known(self, wanted: Sequence[str], argument: str) -> tuple[str, ...]:
        """The wanted columns, if the table has them.

        Raises:
            ValueError: If it has not, or one is given twice.
        """
        for i, name in enumerate(wanted):
            if name not in (*self.names, *self.index):
                beside = f", and beside them {', '.join(self.index)}" if self.index else ""
                raise ValueError(
                    f"{argument}: {self.path} has no column {name!r}; its columns are "
                    f"{', '.join(self.names)}{beside}"
                )
            if name in wanted[:i]:
                raise ValueError(f"{argument}: column {name!r} is given twice")
        return tuple(wanted)

    def roles(self, context: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The features and the context columns; the column of weights is none of them.

        Raises:
            ValueError: If a context column is unknown or that of weights, or no feature is left.
        """
        context = self.known(context, "context")
        if self.weights in context:
            raise ValueError(f"context: {self.weights!r} says how much rows count; leave it out")
        features = tuple(name for name in self.names if name not in (*context, self.weights))
        if not features:
            raise ValueError(f"context: takes all columns of {self.path}, none is left to model")
        return features, context

    def weighed_by(self, column: str | None) -> Self:
        """The same table, whose rows count as a column says; as its file says if that is None.

        Raises:
            ValueError: If there is no such column.
        """
        if column is None:
            return self
        self.known((column,), "weights")
        found = copy(self)
        found.weights = column
        return found

    def cell_error(
        self, column: str, row: int, expected: str, found: str, fault: Fault = "notation"
    ) -> CellError:
        """The error about a cell, whose row in the table is counted from 0."""
        path, number = self.place(row)
        return CellError(path, column, number, expected, found, fault)


@dataclass(frozen=True)
class Shard:
    """One of several contiguous pieces of a table, numbered from 1.

    The pieces are whole blocks of rows, so that results which depend on a row's block are the same
    in a piece and in the whole.

    Raises:
        ValueError: If there is no such piece.

    Example:
        >>> [Shard(i, 3).part(70, rows=10) for i in (1, 2, 3)]
        [(0, 20), (20, 40), (40, 70)]
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(
                f"shard {self.number}/{self.of}: expected i/n with i from 1 to n, such as 1/4"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads `i/n`.

        Raises:
            ValueError: If the text has another form.

        Example:
            >>> Shard.parse("2/5")
            Shard(number=2, of=5)
        """
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal()):
            raise ValueError(f"shard {text!r}: expected i/n, such as 1/4")
        return cls(int(number), int(of))

    def part(self, total: int, rows: int) -> tuple[int, int]:
        """The first row of this piece of `total` rows in blocks of `rows`, and the row after it."""
        blocks = -(-total // rows)
        first, last = (blocks * i // self.of for i in (self.number - 1, self.number))
        return min(first * rows, total), min(last * rows, total)


def table_name(path: Path) -> str:
    """What a table in a file is called: as the file, without its ending.

    Example:
        >>> table_name(Path("data/people.csv.gz")), table_name(Path("-"))
        ('people', 'stdin')
    """
    return "stdin" if path == STDIN else Path(path.name.removesuffix(".gz")).stem


@contextmanager
def one_line_errors(path: Path, failed: str = "") -> Iterator[None]:
    """Turns pyarrow's complaints, some of which print whole rows, into one line about the file."""
    try:
        yield
    except _COMPLAINTS as error:
        reason = str(error).partition("\n")[0]
        if "invalid UTF8" in reason:
            reason = "not all of it is UTF-8 text; --encoding latin-1 reads Latin-1"
        failed = failed or f"cannot be read as {path.suffix[1:]}"
        raise ValueError(f"{path}: {failed}: {reason}") from None


def _cut(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in blocks of exactly so many, but for the last."""
    parts: list[pa.RecordBatch] = []
    missing = rows
    for batch in batches:
        while batch.num_rows:
            parts.append(batch.slice(0, missing))
            batch = batch.slice(parts[-1].num_rows)
            missing -= parts[-1].num_rows
            if not missing:
                yield _joined(parts)
                parts, missing = [], rows
    if parts:
        yield _joined(parts)


def _joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(parts) == 1:
        return parts[0]
    return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
