"""How a CSV file is written: told from its beginning, or refused where that is not clear."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow.csv as pacsv

from .source import CellError

HEAD = 2**16
"""The bytes that are looked at."""

HEADING = 3
"""The most lines above the first row."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

NOT_TEXT = {
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"PK\x03\x04": "a zip archive or a spreadsheet; export it as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet; export it as CSV",
    b"PAR1": "a Parquet file; name it .parquet",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"<": "HTML or XML; was an error page downloaded?",
}
"""First bytes of what is no CSV file, and what it is."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

NOTATIONS = {
    "a separator of thousands; write 1234.5": (
        r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?|[+-]?\d{1,3}([ '\u00a0\u202f]\d{3})+([.,]\d+)?"
        r"|[+-]?\d{1,3}(\.\d{3})+,\d+|[+-]?\d{1,3}(\.\d{3}){2,}"
    ),
    "a decimal comma; write 1.5, or separate columns by semicolons": r"[+-]?\d*,\d+",
    "a currency sign; leave it out": r"[+-]?[$€£¥] ?[+-]?[\d.,]+|[+-]?[\d.,]+ ?[$€£¥]",
    "a percent sign; leave it out": r"[+-]?[\d.,]+ ?%",
    "a negative number in brackets; write a minus": r"\([\d.,]+\)",
    "a date; write 2024-12-31": (
        r"\d{1,2}([/.-])\d{1,2}\1(\d{4}|\d{2})([ T].*)?|\d{4}([/.])\d{1,2}\4\d{1,2}([ T].*)?"
    ),
}
"""Cells that are numbers or dates to a reader, and what to do about them."""


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written."""

    separator: str  # of columns
    decimal: str  # what separates decimals from whole numbers
    notes: tuple[str, ...]  # what was guessed from the file, and could be wrong
    head: tuple[list[str], ...]  # the cells of its first lines

    @property
    def parsing(self) -> pacsv.ParseOptions:
        """What pyarrow has to know of lines and columns."""
        return pacsv.ParseOptions(delimiter=self.separator, newlines_in_values=True)


def sniff(path: Path) -> Dialect:
    """Tells how a CSV file is written."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not start:
        raise ValueError(f"{path}: is empty; expected a header and rows below it")
    kind = next((kind for magic, kind in NOT_TEXT.items() if start.startswith(magic)), None)
    if kind is None and b"\0" in head:
        kind = "no text: it has NUL bytes"
    if kind is not None:
        raise ValueError(f"{path}: expected a CSV file, found {kind}")
    text = _decoded(path, head, whole=len(head) < HEAD)
    records = {separator: _records(text, separator) for separator in SEPARATORS}
    separator = max(SEPARATORS, key=lambda one: (_fits(records[one]), one == ","))
    header, *rows = records[separator]
    if header[0].startswith("#") and any(len(row) != len(header) for row in rows):
        raise ValueError(
            f"{path}: expected a header in the first line, found a comment, {header[0][:40]!r}; "
            "remove such lines"
        )
    notes = [*_header_notes(path, header)]
    if separator != ",":
        notes.append(f"columns of {path} are separated by {SEPARATORS[separator]}")
    decimal = "." if separator == "," else _decimal(path, header, rows)
    if decimal == ",":
        notes.append(f"decimals in {path} are written with commas")
    return Dialect(separator, decimal, tuple(notes), tuple(records[separator][:HEADING]))


def notation(cell: str) -> str | None:
    """What keeps a program from reading a cell that people read as a number or a date, if any.

    Example:
        >>> notation("1,234"), notation("12%"), notation("tall"), notation("1.5")
        ('a separator of thousands; write 1234.5', 'a percent sign; leave it out', None, None)
    """
    return next((why for why, form in NOTATIONS.items() if re.fullmatch(form, cell.strip())), None)


def is_written_number(cell: str) -> bool:
    """Whether a cell is a number as programs write it."""
    return NUMBER.fullmatch(cell.strip()) is not None


def _decoded(path: Path, head: bytes, whole: bool) -> str:
    """The text of a file's beginning, whose last character may be cut."""
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=whole)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}: cannot be read as csv: line {line} is not UTF-8 text; if it was saved as "
            "Latin-1 or Windows-1252, save it as UTF-8"
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


def _header_notes(path: Path, header: Sequence[str]) -> list[str]:
    """Refuses a first row of numbers, and tells of names that look like numbers."""
    numbers = [name for name in header if is_written_number(name)]
    if not numbers or header == [str(i) for i in range(len(header))]:
        return []
    shown = ", ".join(header[:4]) + (", ..." if len(header) > 4 else "")
    counted = len(header) > 1 and all(name.isdecimal() for name in header)
    if len(numbers) == len(header) and not (
        counted and all(int(b) - int(a) == 1 for a, b in pairwise(header))
    ):
        raise ValueError(
            f"{path}: expected a header, found numbers in the first row, {shown}; put a line with "
            "a name for each column above it"
        )
    return [f"the first row of {path}, {shown}, is taken for names of columns"]


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
        raise CellError(path, name, row, "a number", f"{found}; write a point or nothing")
    return ","
