"""Tables in files: whole, with types told from all cells, or in blocks of the types of a schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from maskedflow.data import Source
from maskedflow.data.stream import one_line_errors
from maskedflow.data.table import floats

from .frames import to_arrow
from .schema import Schema
from .types import is_number

__all__ = ["all_numbers", "blanks_to_null", "read_source"]


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
    if source.path.suffix == ".csv":
        table = _read_csv(source.path, names)
    else:
        batches = source.batches(names)
        table = pa.Table.from_batches(batches, schema=source.types(names))
    if not table.num_rows:
        raise ValueError(f"{source.path}: expected at least one row, found none")
    return to_arrow(blanks_to_null(source, table), str(source.path), names)


def _read_csv(path: Path, names: list[str]) -> pa.Table:
    convert = pacsv.ConvertOptions(include_columns=names)
    with one_line_errors(path):
        return pacsv.read_csv(path, convert_options=convert)


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
    """Whether every cell of these columns is a finite number, in constant memory."""
    types = floats(columns)
    if not all(is_number(kind) for kind in source.types(columns, types).types):
        return False
    try:
        for batch in source.batches(columns, types):
            for cells in batch.columns:
                finite = pc.is_finite(cells.cast(pa.float64(), safe=False))
                if cells.null_count or not pc.all(finite).as_py():
                    return False
    except ValueError:  # a cell of a CSV file that is no number
        return False
    return True
