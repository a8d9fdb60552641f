"""Tables in files: whole, with types told from all cells, or in blocks of the types of a schema."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from maskedflow.sources import CellError, Source
from maskedflow.sources.csv import CsvSource
from maskedflow.sources.dialect import is_number as is_written_number
from maskedflow.sources.dialect import notation
from maskedflow.sources.numbers import are_exact, floats, numbers

from .frames import to_arrow
from .schema import Schema
from .types import is_number

__all__ = ["all_numbers", "blanks_to_null", "read_source", "refuse_odd_cells"]

DATE = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?")

MOST, FEW = 0.9, 3
"""A column is meant to be numbers or dates if this share of its cells is, or more than half of them
are and so few other texts occur."""

LOOKED_AT = 10_000
"""The rows after which a column that is half text may be taken for text."""


def read_source(source: Source, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads columns of a table (all, if None) into memory.

    The types of a CSV file are told from all its cells. A cell that is empty is missing; `NA`,
    `nan` and their like are missing numbers, but in a column of text they are text.

    Args:
        source: The table.
        columns: The columns wanted, in the order wanted.

    Raises:
        ValueError: If the file is damaged, or has no rows.
    """
    names = list(source.names if columns is None else columns)
    if isinstance(source, CsvSource):
        with source.errors():
            table = source.read(names)
    else:
        batches = source.batches(names)
        table = pa.Table.from_batches(batches, schema=source.types(names))
    if not table.num_rows:
        raise ValueError(f"{source.path}: expected at least one row, found none")
    return to_arrow(blanks_to_null(source, table), str(source.path), names)


def blanks_to_null(source: Source, table: pa.Table, schemas: Sequence[Schema] = ()) -> pa.Table:
    """Takes an empty text of a CSV file for a missing one, as an empty number is.

    Args:
        source: Where the table is from.
        table: Some of its columns.
        schemas: What is known of the columns. Where a schema has the empty text as a value, one it
            is: a Parquet file may have had both.
    """
    if source.path.suffix != ".csv":
        return table
    texts: set[str | None] = {
        column.name
        for schema in schemas
        for column in schema.columns
        if "" in column.levels or column.value == ""
    }
    texts |= {c.name for schema in schemas for c in schema.columns if c.of in texts - {None}}
    for i, name in enumerate(table.column_names):
        cells = table.column(i)
        if pa.types.is_string(cells.type) and name not in texts:
            none = pa.scalar(None, cells.type)
            table = table.set_column(i, name, pc.if_else(pc.equal(cells, ""), none, cells))
    return table


def all_numbers(source: Source, columns: Sequence[str]) -> bool:
    """Whether every column is one of numbers; False if one is of another kind.

    Raises:
        CellError: If all are but for a cell, which is missing or no finite number; and if a column
            of a CSV file is numbers or dates for the most part, see :func:`refuse_odd_cells`.
    """
    types = floats(columns)
    if not all(is_number(kind) for kind in source.types(columns, types).types):
        return False
    start = 0
    try:
        for batch in source.batches(columns, types):
            numbers(batch, columns, source, start)
            start += batch.num_rows
    except CellError:
        table = read_source(source, columns)
        refuse_odd_cells(source, table)
        if all(is_number(kind) or pa.types.is_null(kind) for kind in table.schema.types):
            raise
        return False
    return True


def refuse_odd_cells(source: Source, table: pa.Table, declared: Collection[str] = ()) -> None:
    """Refuses a column of a CSV file that is text by a few cells, or by the way it is written.

    Numbers of a size that no density can be computed of are refused, too.

    Args:
        source: The table.
        table: Its columns, as they were read.
        declared: Columns of which something is known, which are what they were declared to be.

    Raises:
        CellError: If there is such a column; the message names its first odd cell.
    """
    for name, cells in zip(table.column_names, table.columns, strict=True):
        if is_number(cells.type):
            _refuse_huge(source, name, cells)
        if isinstance(source, CsvSource) and pa.types.is_string(cells.type):
            if name in declared or (odd := _first_odd(cells)) is None:
                continue
            path, row = source.place(odd)
            cell = cells[odd].as_py()
            hint = notation(cell)
            raise CellError(
                f"{path}: column {name!r}, row {row}: expected a number or a date, found {cell!r} "
                + (f"({hint})" if hint else "in a column of numbers or dates")
                + "; leave the cell empty if it is missing, or declare the column's kind as "
                "categorical (--schema)"
            )


def _refuse_huge(source: Source, name: str, cells: pa.ChunkedArray) -> None:
    x = cells.cast(pa.float64(), safe=False).to_numpy()
    finite = np.isfinite(x)
    huge = np.abs(x, where=finite, out=np.zeros_like(x)) > np.finfo(np.float32).max
    bad = huge | ~are_exact(cells, np.where(finite, x, 0.0), name, source, 0)
    if bad.any():
        at = int(bad.argmax())
        path, row = source.place(at)
        expected = "within the range of float32" if huge[at] else "of at most 15 digits"
        raise CellError(
            f"{path}: column {name!r}, row {row}: expected a number {expected}, found {x[at]:g}"
        )


def _first_odd(cells: pa.ChunkedArray) -> int | None:
    """The first cell of a column of text that keeps it from being one of numbers or dates."""
    counted = pc.value_counts(cells)
    values, counts = counted.field("values").to_pylist(), counted.field("counts").to_numpy()
    blank = {"", None, *pacsv.ConvertOptions().null_values}
    plain, odd, foreign, rows = 0, [], 0, 0
    for value, count in zip(values, counts.tolist(), strict=True):
        if value in blank or not value.strip():
            continue
        rows += count
        if is_written_number(value) or DATE.fullmatch(value.strip()):
            plain += count
        else:
            odd.append(value)
            if notation(value) is None:
                foreign += 1
            else:
                plain += count
        if foreign > FEW and plain < rows / 2 and rows > LOOKED_AT:
            return None  # hardly any column of text needs a look at all its values
    nearly = plain >= MOST * rows or (2 * plain > rows and foreign <= FEW)
    if not odd or not nearly:
        return None
    return int(pc.index(pc.is_in(cells, pa.array(odd, cells.type)), True).as_py())
