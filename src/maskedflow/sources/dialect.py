"""How a CSV file is written: as is said, else told from its beginning, or refused as unclear."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow.csv as pacsv

from maskedflow.files import CLOSED

from .heading import check_header, check_one_column
from .notation import DATE_ADVICE
from .source import CellError

HEAD = 2**16
"""The bytes that are looked at."""

HEADING = 3
"""The most lines above the first row."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

NOT_TEXT = {
    b"PK\x03\x04": "a zip archive or a spreadsheet; export it as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet; export it as CSV",
    b"PAR1": "a Parquet file; name it .parquet",
    b"\xff\xfe": "UTF-16 text; --encoding utf-16 reads it",
    b"\xfe\xff": "UTF-16 text; --encoding utf-16 reads it",
    b"<": "HTML or XML; was an error page downloaded?",
}
"""First bytes of what is no CSV file, and what it is."""


@dataclass(frozen=True)
class Dialect:
    r"""How a CSV file is written, as far as it is said; what is None is told from the file.

    Args:
        delimiter: What separates columns, a character such as ";"; a tab is "\t" or "tab".
        decimal: What separates decimals from whole numbers, "." or ",".
        encoding: Its encoding, by a name that Python knows, such as "latin-1" or "utf-16"; UTF-8
            if None.
        header: Whether the first line has the names of columns. Without it they are `x0`, `x1` ...
        date_format: How dates are written, as `strftime` has it, such as "%d/%m/%Y" for 31/12/2024;
            those of ISO 8601, 2024-12-31, are read anyhow.

    Raises:
        ValueError: If there is no such delimiter, encoding or format.

    Example:
        >>> Dialect(delimiter="tab").delimiter
        '\t'
    """

    __pydantic_config__: ClassVar = CLOSED

    delimiter: str | None = None
    decimal: Literal[".", ","] | None = None
    encoding: str | None = None
    header: bool | None = None
    date_format: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Dialect | None:
        """What options say of it, by name; None if they say nothing."""
        said = {one.name: options.get(one.name) for one in fields(cls)}
        return cls(**said) if any(value is not None for value in said.values()) else None

    def __post_init__(self) -> None:
        if self.delimiter in ("tab", r"\t"):
            object.__setattr__(self, "delimiter", "\t")
        if self.delimiter is not None and (
            len(self.delimiter) != 1 or ord(self.delimiter) > 127 or self.delimiter in '"\r\n'
        ):
            raise ValueError(f"delimiter: expected one ASCII character, got {self.delimiter!r}")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except LookupError:
                raise ValueError(
                    "encoding: expected a name such as latin-1, cp1252 or utf-16, "
                    f"got {self.encoding!r}"
                ) from None
        if self.date_format is not None and not re.search("%[dmYyjb]", self.date_format):
            raise ValueError(
                f"date_format: expected a format such as {DATE_ADVICE}, got {self.date_format!r}"
            )


@dataclass(frozen=True)
class Sniffed:
    """How a CSV file is written, and what it begins with."""

    delimiter: str
    decimal: str
    columns: tuple[str, ...]
    heading: int  # the lines above the first row: 1, or 0 of a file without a header
    notes: tuple[str, ...]  # what was guessed from the file, and could be wrong
    head: tuple[list[str], ...]  # the cells of its first lines

    @property
    def parsing(self) -> pacsv.ParseOptions:
        """What pyarrow has to know of lines and columns."""
        return pacsv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True)


def sniff(path: Path, said: Dialect, called: Path) -> Sniffed:
    """Tells how a file of UTF-8 text is written, where that is not said.

    Args:
        path: The file.
        said: What is known of it.
        called: What it is called in messages.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not start:
        raise ValueError(f"{called}: is empty; expected a header and rows below it")
    kind = next((kind for magic, kind in NOT_TEXT.items() if start.startswith(magic)), None)
    if kind is None and b"\0" in head:
        kind = "no text: it has NUL bytes"
    if kind is not None:
        raise ValueError(f"{called}: expected a CSV file, found {kind}")
    text, notes = _decoded(called, head, whole=len(head) < HEAD), list[str]()
    delimiter = said.delimiter
    if delimiter is None:
        found = {one: _fits(_records(text, one)) for one in SEPARATORS}
        delimiter = max(found, key=lambda one: (found[one], one == ","))
        if delimiter != ",":
            shown = "tab" if delimiter == "\t" else f"'{delimiter}'"
            told = f"columns of {called} are separated by {SEPARATORS[delimiter]}"
            notes.append(f"{told} (--delimiter {shown})")
        check_one_column(called, _records(text, ","))
    records = _records(text, delimiter)
    header, *rows = records
    if said.header is False:
        columns, rows = tuple(f"x{i}" for i in range(len(header))), records
    else:
        columns = tuple(header)
        if header[0].startswith("#") and any(len(row) != len(header) for row in rows):
            raise ValueError(
                f"{called}: expected a header in the first line, found a comment, "
                f"{header[0][:40]!r}; remove such lines"
            )
        if said.header is None:
            notes[:0] = check_header(called, header, rows)
    decimal: str | None = said.decimal
    if decimal is None:
        decimal = "." if delimiter == "," else _decimal(called, columns, rows)
        if decimal == ",":
            notes.append(f"decimals in {called} are written with commas (--decimal ,)")
    heading = 0 if said.header is False else 1
    return Sniffed(delimiter, decimal, columns, heading, tuple(notes), tuple(records[:HEADING]))


def _decoded(path: Path, head: bytes, whole: bool) -> str:
    """The text of a file's beginning, whose last character may be cut."""
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=whole)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}: cannot be read as csv: line {line} is not UTF-8 text; --encoding cp1252 "
            "reads what Windows wrote, --encoding latin-1 other Western European text"
        ) from None


def _records(text: str, separator: str) -> list[list[str]]:
    """The header and the rows that are whole, cells as they are."""
    found = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    return found[:-1] if len(text) >= HEAD // 4 and len(found) > 2 else found


def _fits(records: list[list[str]]) -> float:
    """The share of rows that have as many cells as the header, 0 if that is one cell."""
    header, *rows = records
    if len(header) == 1:
        return 0.0
    return sum(len(row) == len(header) for row in rows) / len(rows) if rows else 1.0


def _decimal(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Whether decimals are written with a comma or with a point."""
    commas = [
        (i, name, cell)
        for i, row in enumerate(rows, 1)
        for name, cell in zip(header, row, strict=False)
        if re.fullmatch(r"\s*[+-]?\d*,\d+\s*", cell)
    ]
    points = any(re.fullmatch(r"\s*[+-]?\d*\.\d+\s*", cell) for row in rows for cell in row)
    if points or not commas:
        return "."
    if all(re.fullmatch(r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*", cell) for _, _, cell in commas):
        row, name, cell = commas[0]
        found = f"{cell!r}, which has a decimal comma or a separator of thousands"
        advice = "--decimal , reads the first; leave out the second"
        raise CellError(path, name, row, "a number", f"{found}; {advice}")
    return ","
