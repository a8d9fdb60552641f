"""Tables in files, whole: their types told from all cells, or known from a schema."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from maskedflow.sources import CellError, Source
from maskedflow.sources.arrow_types import is_number
from maskedflow.sources.notation import is_written_number, notation
from maskedflow.sources.numbers import MISSING, check_numbers

from .cells import is_missing
from .frames import to_arrow
from .schema import Schema

DATE = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?")

MOST, FEW = 0.9, 3
"""A column is meant to be numbers or dates if this share of its cells is, or more than half of them
are and so few other texts occur."""

LOOKED_AT = 10_000
"""The rows after which a column that is half text may be taken for text."""


def read_source(
    source: Source,
    columns: Sequence[str] | None = None,
    declared: Collection[str] = (),
    *,
    sizes: bool = True,
) -> pa.Table:
    """Reads columns of a table (all, if None) into memory; those of a CSV file get their types.

    These are told from all cells of a column. A cell that is empty is missing; `NA`, `nan` and
    their like are missing numbers, but in a column of text they are text.

    Columns that are `declared` may be text of any kind. Without `sizes` numbers are not looked at.

    Raises:
        CellError: If a number is of a size that no density can be computed of, or a column of a CSV
            file is text by a few cells only, or by the way its numbers are written.
        ValueError: If the file is damaged, or has no rows.
    """
    names = list(source.names if columns is None else columns)
    table = source.table(names)
    if not table.num_rows:
        raise ValueError(f"{source.path}: expected at least one row, found none")
    table = to_arrow(_blanks_to_null(source, table), str(source.path), names)
    if sizes:
        check_sizes(table, source)
    for name, cells in zip(table.column_names, table.columns, strict=True):
        if not source.is_typed and name not in (*declared, source.weights):
            _refuse_odd(cells, name, source)
    return table


def check_sizes(table: pa.Table, source: Source) -> None:
    """Refuses numbers of a size that no density can be computed of.

    Raises:
        CellError: If there is one.
    """
    for name, cells in zip(table.column_names, table.columns, strict=True):
        if is_number(cells.type):
            check_numbers(cells, name, source, finite=False)


def read_declared(source: Source, columns: Sequence[str], schemas: Sequence[Schema]) -> pa.Table:
    """Reads columns of a table into memory, in the types that schemas say.

    Raises:
        ValueError: If the file is damaged.
        CellError: If a cell of a CSV file has another type, or as :func:`as_declared`.
    """
    types = {field.name: field.type for schema in schemas for field in schema.arrow_schema}
    return as_declared(source, source.table(columns, types), schemas)


def as_declared(
    source: Source, table: pa.Table, schemas: Sequence[Schema], start: int = 0
) -> pa.Table:
    """Makes empty texts of a CSV file missing, as empty numbers are, and checks what is there.

    Args:
        source: Where the table is from.
        table: Rows of some of its columns.
        schemas: What is known of the columns. Where a schema has the empty text as a value, it
            stays one: a Parquet file may have had both.
        start: The number of the first row in the source.

    Raises:
        CellError: If a number is text or infinite, or a cell is missing where a schema allows no
            gaps.
    """
    table = _blanks_to_null(source, table, schemas)
    there = set(table.column_names)
    for schema in schemas:
        for field in (field for field in schema.arrow_schema if field.name in there):
            name, cells = field.name, table.column(field.name)
            if is_number(field.type) and pa.types.is_string(cells.type):
                raise CellError(source.path, name, None, "numbers", f"type {cells.type}", "kind")
            if schema.missing == "error" and (missing := is_missing(cells)).any():
                row = start + int(missing.argmax())
                raise source.cell_error(name, row, "a value", MISSING, "missing")
            floating = pa.types.is_floating(cells.type)
            if floating and (infinite := np.isinf(cells.cast(pa.float64()).to_numpy())).any():
                row = int(infinite.argmax())
                found = str(cells[row].as_py())
                raise source.cell_error(name, start + row, "a finite number", found)
    return table


def _blanks_to_null(source: Source, table: pa.Table, schemas: Sequence[Schema] = ()) -> pa.Table:
    """Makes texts null that are empty and no value of their column."""
    if source.is_typed:
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


def all_numbers(table: pa.Table) -> bool:
    """Whether every column of a table holds numbers, or nothing at all."""
    return all(is_number(kind) or pa.types.is_null(kind) for kind in table.schema.types)


def _refuse_odd(cells: pa.ChunkedArray, name: str, source: Source) -> None:
    """Refuses a column that is text by a few cells, or by the way it is written."""
    if not pa.types.is_string(cells.type) or (odd := _first_odd(cells)) is None:
        return
    cell, others = cells[odd].as_py(), filter(None, cells.unique().to_pylist())
    why = f"({hint})" if (hint := notation(cell, others)) else "in a column of numbers or dates"
    advice = "declare the column's kind as categorical (--schema)"
    found = f"{cell!r} {why}; leave the cell empty if it is missing, or {advice}"
    raise source.cell_error(name, odd, "a number or a date", found)


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
