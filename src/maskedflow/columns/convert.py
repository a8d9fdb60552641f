"""A table to the rows that a density works on, and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from .cells import decode, encode, equal, plain
from .column import FIXED, Column
from .rows import Rows
from .schema import Schema, refuse_missing
from .types import is_number, is_temporal

__all__ = ["to_rows", "to_table"]


def to_rows(schema: Schema, table: pa.Table, start: int = 0, *, strict: bool = True) -> Rows:
    """Turns a table into codes, values and angles.

    What a column cannot hold, a category that is not known, a number out of bounds or off the grid,
    another value than a constant's, makes a row impossible: its density is 0. Columns that the
    schema does not name are ignored.

    Args:
        schema: What is known of the columns.
        table: The table, in any order of columns.
        start: The number of rows before these, for errors.
        strict: Whether numbers off the grid or out of bounds, and other values than a constant's,
            make a row impossible. They do not where no density is asked of them.

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
    for name in schema.names:
        if name not in there:
            raise ValueError(f"expected a column {name!r}, found {', '.join(table.column_names)}")
    table = table.select(list(schema.names))
    if schema.missing != "model":
        refuse_missing(table, start)
    n = table.num_rows
    codes = np.zeros((n, len(schema.coded)), np.int64)
    values = np.zeros((n, len(schema.valued)))
    angles = np.zeros((n, len(schema.angular)))
    observed, turned = np.ones_like(values, np.bool_), np.ones_like(angles, np.bool_)
    impossible = np.zeros(n, np.bool_)
    code_of, value_of, angle_of = map(_places, (schema.coded, schema.valued, schema.angular))
    for column in schema.columns:
        if column.kind in FIXED and not strict:
            continue
        if column.kind == "constant":
            impossible |= is_not_constant(column, table, start)
        elif column.kind == "duplicate":
            impossible |= is_not_duplicate(column, table, start)
        else:
            cells = encode(column, table.column(column.name), start, strict=strict)
            impossible |= cells.impossible
            if column.name in code_of:
                codes[:, code_of[column.name]] = cells.code
            if column.name in value_of:
                values[:, value_of[column.name]] = cells.number
                observed[:, value_of[column.name]] = cells.observed
            if column.name in angle_of:
                angles[:, angle_of[column.name]] = cells.number
                turned[:, angle_of[column.name]] = cells.observed
    parts = (codes, values, observed, angles, turned, impossible)
    return Rows(*map(torch.from_numpy, parts))


def _places(columns: tuple[Column, ...]) -> dict[str, int]:
    return {column.name: i for i, column in enumerate(columns)}


def is_not_constant(column: Column, table: pa.Table, start: int = 0) -> np.ndarray:
    """Which cells are not what they are in all rows of a constant column."""
    cells = plain(column.name, column.type, table.column(column.name), start)
    value = float(column.value) if isinstance(column.value, bool) else column.value
    return ~equal(cells, pa.scalar(value, cells.type))


def is_not_duplicate(column: Column, table: pa.Table, start: int = 0) -> np.ndarray:
    """Which cells are not those of the column that this one repeats."""
    cells = plain(column.name, column.type, table.column(column.name), start)
    others = plain(column.name, column.type, table.column(column.of), start)
    return ~equal(cells, others)


def to_table(schema: Schema, rows: Rows) -> pa.Table:
    """Turns codes, values and angles into a table: the inverse of `to_rows`.

    Numbers are put on their grid, missing cells are null, constants and duplicates are written
    back, and every column has its own type.

    Example:
        >>> schema = Schema.infer(pa.table({"a": [0.5, 2.0], "b": ["u", "v"], "c": [7, 7]}))
        >>> table = pa.table({"a": [1.5], "b": ["v"], "c": [7]})
        >>> to_table(schema, to_rows(schema, table)).equals(table)
        True
    """
    n = len(rows)
    code_of, value_of, angle_of = map(_places, (schema.coded, schema.valued, schema.angular))
    cells: dict[str, pa.Array] = {}
    nothing = np.zeros(n)
    for column in schema.columns:
        name = column.name
        code, number = nothing.astype(np.int64), nothing
        if name in code_of:
            code = rows.codes[:, code_of[name]].numpy()
        if name in value_of:
            number = rows.values[:, value_of[name]].numpy()
        if name in angle_of:
            number = rows.angles[:, angle_of[name]].numpy()
        if column.kind == "constant":
            cells[name] = _constant(column, n)
        elif column.kind != "duplicate":
            cells[name] = decode(column, code, number)
    for column in schema.columns:
        if column.kind == "duplicate":
            cells[column.name] = cells[column.of or ""].cast(column.type, safe=False)
    return pa.table({name: cells[name] for name in schema.names})


def _constant(column: Column, n: int) -> pa.Array:
    kind = column.type
    if column.value is None:
        return pa.nulls(n, kind)
    if is_temporal(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array([column.value] * n, pa.int64()).cast(width).cast(kind)
    if pa.types.is_dictionary(kind):
        indices, values = np.zeros(n, np.int8), pa.array([column.value]).cast(kind.value_type)
        return pa.DictionaryArray.from_arrays(
            pa.array(indices).cast(kind.index_type), values, ordered=kind.ordered
        )
    value = float(column.value) if is_number(kind) else column.value
    return pa.array([value] * n).cast(kind, safe=False)
