"""Whether the first line of a CSV file has the names of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from .notation import is_written_number

OTHERS = " :~^!"
"""Separators of columns that are so rare that none is taken for one unless it is said."""


def check_header(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Refuses a first line that is a row, and tells of names that look like numbers.

    It is a row if all of its cells are numbers, or if numbers are where all other lines have
    numbers, and nowhere else. Numbers that count, such as years, may be names.

    Returns:
        What is to be known of the header, a sentence.

    Raises:
        ValueError: If it is a row.
    """
    numbers = [name for name in header if is_written_number(name)]
    if not numbers or header == [str(i) for i in range(len(header))]:
        return []
    shown = ", ".join(header[:4]) + (", ..." if len(header) > 4 else "")
    if _counts(numbers) or not _alike(header, rows):
        return [f"the first row of {path}, {shown}, is taken for names of columns (--header)"]
    what = "numbers" if len(numbers) == len(header) else "cells like those below"
    raise ValueError(
        f"{path}: expected a header, found {what} in the first row, {shown}; put a line with "
        "a name for each column above it, or say --no_header; --header takes it for names"
    )


def _counts(numbers: Sequence[str]) -> bool:
    """Whether several whole numbers follow one another."""
    return (
        len(numbers) > 1
        and all(name.isdecimal() for name in numbers)
        and all(int(b) - int(a) == 1 for a, b in pairwise(numbers))
    )


def _alike(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a header has numbers just where all rows have some."""
    kinds = [is_written_number(name) for name in header]
    if all(kinds):
        return True
    whole = [row for row in rows if len(row) == len(header)]
    return len(whole) > 1 and all(kinds == list(map(is_written_number, row)) for row in whole)


def check_one_column(path: Path, records: Sequence[Sequence[str]]) -> None:
    """Refuses a single column whose cells are several numbers.

    Raises:
        ValueError: If they are, with the separator that reads them.
    """
    if len(records) < 2 or any(len(record) != 1 for record in records):
        return
    (name,), *rows = records
    for separator in OTHERS:
        cells = [row[0].strip().split(separator) for row in rows]
        width = len(name.strip().split(separator))
        if width > 1 and all(
            len(row) == width and all(map(is_written_number, row)) for row in cells
        ):
            raise ValueError(
                f"{path}: expected columns separated by commas, found one, {name[:40]!r}, of cells "
                f"such as {rows[0][0][:40]!r}; --delimiter '{separator}' reads {width}"
            )
