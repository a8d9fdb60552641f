"""CSV files as a stream, which may begin at any row once the lines have been counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from .anesthetic import BESIDE, WEIGHTS, samples_heading
from .dialect import Dialect, sniff
from .notation import notation
from .source import ROWS, Fault, Source, Types, one_line_errors
from .unpacked import unpacked

BYTES = 2**20
"""What is read at once."""

NEWLINE, RETURN, QUOTE = b'\n\r"'


class CsvSource(Source):
    """A CSV file, written as is said or as it seems."""

    is_typed = False

    def __init__(self, path: Path, dialect: Dialect | None = None) -> None:
        self.path = path
        said = dialect or Dialect()
        if said.delimiter is None and ".tsv" in path.suffixes:
            said = replace(said, delimiter="\t")
        self._copy = unpacked(path, said.encoding)  # which lives as long as this
        self._file = path if self._copy is None else self._copy.path
        found = self._found = sniff(self._file, said, path)
        self._said, self._heading, self.notes = said, found.heading, found.notes
        if self._copy is not None:
            self.notes = (f"{path} is read from a copy in {self._file.parent}", *self.notes)
        if samples := samples_heading(found.head):
            self._columns, self._heading = samples
            self.names = tuple(name for name in self._columns[1:] if name not in BESIDE)
            self.index = tuple(name for name in self._columns[1:] if name in BESIDE)
            self.weights = WEIGHTS if WEIGHTS in self.index else None
            return
        self._columns = found.columns
        reading = self._reading(whole=True)
        with self._errors(), pacsv.open_csv(self._file, reading, found.parsing) as reader:
            self.names = self._columns = tuple(reader.schema.names)

    def count(self) -> int:
        return self._lines[1]

    def estimate(self) -> int:
        with self._file.open("rb") as file:
            start = file.read(BYTES)
        lines = max(1, start.count(b"\n"))
        return max(0, round(self._file.stat().st_size * lines / max(1, len(start))) - 1)

    def pieces(self) -> list[int]:
        return list(range(0, max(1, self.count()), ROWS))

    def place(self, row: int) -> tuple[Path, int]:
        return self.path, row + 1

    def types(self, columns: Sequence[str], given: Types | None = None) -> pa.Schema:
        return pa.schema([(name, (given or {}).get(name, pa.string())) for name in columns])

    @cached_property
    def _lines(self) -> tuple[list[int], int]:
        """Where every ROWS-th row begins, in bytes, and the number of rows."""
        places: list[int] = []
        rows = 0
        lines = line_starts(self._file)
        # The first line that is not empty is the header.
        header = self._heading
        for starts in lines:
            starts, header = starts[header:], max(0, header - len(starts))
            places += starts[-rows % ROWS :: ROWS].tolist()
            rows += len(starts)
        return places, rows

    def text(self, column: str, row: int) -> str:
        batch = next(self.batches([column], first=row, last=row + 1))
        return str(batch.column(0)[0].as_py())

    def table(self, columns: Sequence[str], types: Types | None = None) -> pa.Table:
        with self._errors(columns, types or {}):
            return pacsv.read_csv(
                self._file,
                read_options=self._reading(whole=True),
                parse_options=self._found.parsing,
                convert_options=self._converting(columns, types or {}),
            )

    def _reading(self, *, whole: bool, **options: Any) -> pacsv.ReadOptions:
        """How lines are read: from the header on, or from a row."""
        if whole and self._heading == 1:
            return pacsv.ReadOptions(**options)
        skipped = self._heading if whole else 0
        return pacsv.ReadOptions(column_names=self._columns, skip_rows=skipped, **options)

    def _converting(self, columns: Sequence[str], types: Types) -> pacsv.ConvertOptions:
        form = self._said.date_format
        return pacsv.ConvertOptions(
            timestamp_parsers=[] if form is None else [form, pacsv.ISO8601],
            decimal_point=self._found.decimal,
            include_columns=list(columns),
            column_types={name: types[name] for name in columns if name in types},
        )

    @contextmanager
    def _errors(self, columns: Sequence[str] = (), types: Types | None = None) -> Iterator[None]:
        """Turns pyarrow's complaints into one line: about the first bad row or cell, if any."""
        with one_line_errors(self.path):
            try:
                yield
            except pa.ArrowInvalid:
                self._explain(columns, types or {})
                raise

    def _explain(self, columns: Sequence[str], types: Types) -> None:
        """Raises an error about the first row or cell that cannot be read, if it is one."""
        try:
            for _ in self._parsed(columns, types, threads=False):  # one thread counts rows
                pass
        except pa.ArrowInvalid as error:
            if found := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", str(error)):
                row, wanted, cells = map(int, found.groups())
                raise ValueError(
                    f"{self.path}: row {row - self._heading}: expected {wanted} cells, as in the "
                    f"header, found {cells}"
                ) from None
            found = re.match(r"In CSV column #(\d+): Row #(\d+):", str(error))
            if found and (name := self._columns[int(found[1])]) in types:
                row = int(found[2]) - self._heading - 1
                cell = self.text(name, row)
                hint = notation(cell)
                told = f"{cell!r} ({hint})" if hint else repr(cell)
                fault: Fault = "notation" if hint else "kind"
                raise self.cell_error(name, row, _called(types[name]), told, fault) from None

    def _read(
        self, columns: tuple[str, ...], types: Types, rows: int, first: int, last: int | None
    ) -> Iterator[pa.RecordBatch]:
        with self._errors(columns, types):
            if first == 0 and last is None:
                yield from self._parsed(columns, types)
            elif first < (end := self.count() if last is None else last):
                yield from self._part(columns, types, first, end)

    def _part(
        self, columns: tuple[str, ...], types: Types, first: int, last: int
    ) -> Iterator[pa.RecordBatch]:
        """The rows from `first` to `last`, and a look whether lines were rows."""
        places, count = self._lines
        piece = first // ROWS
        row = piece * ROWS
        for batch in self._parsed(columns, types, places[piece]):
            part = batch.slice(min(max(first - row, 0), batch.num_rows))
            part = part.slice(0, max(0, last - max(row, first)))
            row += batch.num_rows
            if part.num_rows:
                yield part
            if row >= last and last < count:
                return
        if row != last:
            raise ValueError(
                f"{self.path}: expected {last:,} rows by its line breaks, found {row:,}; is there "
                "a quotation mark within a cell?"
            )

    def _parsed(
        self,
        columns: Sequence[str],
        types: Types,
        place: int | None = None,
        *,
        threads: bool = True,
    ) -> Iterator[pa.RecordBatch]:
        """All rows from a place in the file on; from its header if None."""
        # Types are declared: inferred ones come from the first block, where a column of floats may
        # look like integers, or be empty.
        declared = self.types(columns, types)
        convert = self._converting(columns, {field.name: field.type for field in declared})
        read = self._reading(whole=place is None, use_threads=threads, block_size=BYTES)
        with pa.OSFile(str(self._file)) as file:
            file.seek(place or 0)
            with pacsv.open_csv(file, read, self._found.parsing, convert) as reader:
                yield from reader


def _called(kind: pa.DataType) -> str:
    """A type in words."""
    if pa.types.is_floating(kind):
        return "a number"
    if pa.types.is_integer(kind):
        return "a whole number"
    return "true or false" if pa.types.is_boolean(kind) else f"{kind}"


def line_starts(path: Path) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Where the lines of a file begin that are not empty; a break in quotation marks ends none."""
    begin = offset = 0  # of the line, and of the chunk
    before, quotes = NEWLINE, 0
    with path.open("rb") as file:
        for chunk in iter(partial(file.read, BYTES), b""):
            data = np.frombuffer(chunk, np.uint8)
            ends = np.flatnonzero(data == NEWLINE)
            if quotes % 2 or QUOTE in chunk:
                marks = np.flatnonzero(data == QUOTE)
                ends = ends[(quotes + np.searchsorted(marks, ends)) % 2 == 0]
                quotes += len(marks)
            if len(ends):
                starts = np.concatenate(([begin], offset + ends[:-1] + 1))
                length = offset + ends - starts
                last = np.where(ends > 0, data[ends - 1], before)
                yield starts[(length > 1) | ((length == 1) & (last != RETURN))]
                begin = offset + int(ends[-1]) + 1
            before = chunk[-1]
            offset += len(chunk)
    if offset - begin > 1 or (offset - begin == 1 and before != RETURN):
        yield np.array([begin])
