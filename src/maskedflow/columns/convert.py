"""A table to the rows that a density works on, and back."""

from __future__ import annotations

import pyarrow as pa
import torch

from .column import Column
from .kinds.fixed import Duplicate
from .rows import Rows
from .schema import Schema, refuse_missing


def to_rows(schema: Schema, table: pa.Table, start: int = 0, *, strict: bool = True) -> Rows:
    """Turns a table into codes, values and angles.

    What a column cannot hold, a category that is not known, a number out of bounds or off the grid,
    another value than a constant's, makes a row impossible: its density is 0. Columns that the
    schema does not name are ignored.

    If not `strict`, numbers off the grid or out of bounds, and other values than a constant's, do
    not make a row impossible: no density is asked of them. Rows of errors are counted from `start`.

    Raises:
        ValueError: If a column is not there or has cells of another type, a number is infinite, or
            a value is missing and the schema does not model that; the message names the column
            and the row, counted from 1.

    Example:
        >>> schema = Schema.infer(pa.table({"a": [0.5, 2.0], "b": ["u", "v"]}))
        >>> rows = to_rows(schema, pa.table({"a": [1.5], "b": ["v"]}))
        >>> rows.values, rows.codes
        (tensor([[1.5000]], dtype=torch.float64), tensor([[1]]))
    """
    there = set(table.column_names)
    for name in schema.needed:
        if name not in there:
            raise ValueError(f"expected a column {name!r}, found {', '.join(table.column_names)}")
    table = table.select(list(schema.needed))
    if schema.missing != "model":
        refuse_missing(table, start)
    cells = {column.name: column.encode(table, start, strict=strict) for column in schema.columns}

    def part(columns: tuple[Column, ...], name: str, dtype: torch.dtype) -> torch.Tensor:
        arrays = [torch.from_numpy(getattr(cells[column.name], name)) for column in columns]
        none = torch.empty(table.num_rows, 0, dtype=dtype)
        return torch.stack(arrays, 1) if arrays else none

    return Rows(
        part(schema.coded, "code", torch.long),
        part(schema.valued, "number", torch.double),
        part(schema.valued, "observed", torch.bool),
        part(schema.angular, "number", torch.double),
        part(schema.angular, "observed", torch.bool),
        part(schema.columns, "impossible", torch.bool).any(1),
    )


def to_table(schema: Schema, rows: Rows) -> pa.Table:
    """Turns codes, values and angles into a table: the inverse of `to_rows`.

    Numbers are put on their grid, missing cells are null, constants and duplicates are written
    back, and every column has its own type. Columns of kind `ignore` are not there.

    Example:
        >>> schema = Schema.infer(pa.table({"a": [0.5, 2.0], "b": ["u", "v"], "c": [7, 7]}))
        >>> table = pa.table({"a": [1.5], "b": ["v"], "c": [7]})
        >>> to_table(schema, to_rows(schema, table)).equals(table)
        True
    """
    none = torch.zeros(len(rows), dtype=torch.long)
    code = dict(zip(schema.coded, rows.codes.unbind(1), strict=True))
    number = dict(zip(schema.valued, rows.values.unbind(1), strict=True))
    number |= zip(schema.angular, rows.angles.unbind(1), strict=True)
    cells: dict[str | None, pa.Array] = {}
    needed = [column for column in schema.columns if column.name in schema.needed]
    for column in sorted(needed, key=lambda one: isinstance(one, Duplicate)):
        if isinstance(column, Duplicate):
            cells[column.name] = cells[column.of].cast(column.type, safe=False)
        else:
            parts = code.get(column, none), number.get(column, none)
            cells[column.name] = column.decode(*(part.numpy() for part in parts))
    return pa.table({name: cells[name] for name in schema.needed})
