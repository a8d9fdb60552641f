"""Some columns of a table as pieces of its rows."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from maskedflow.columns.column import Column
from maskedflow.columns.rows import Rows
from maskedflow.columns.schema import Schema

from .proposal import Pieces

__all__ = ["given_columns", "pieces_of", "units_of"]


def given_columns(schema: Schema, names: Collection[str]) -> tuple[Column, ...]:
    """The columns that are known when some are: of a duplicate, the column that it repeats.

    Constants are left out, for they say nothing.

    Args:
        schema: The columns.
        names: Those that are given.

    Raises:
        ValueError: If there is no such column.

    Example:
        >>> import pyarrow as pa
        >>> from maskedflow.tables import Schema
        >>> a = [0.5, 2.0, 4.5]
        >>> schema = Schema.infer(pa.table({"a": a, "again": a, "one": [1, 1, 1]}))
        >>> [column.name for column in given_columns(schema, ["again", "one"])]
        ['a']
    """
    known = {column.name: column for column in schema.columns}
    for name in names:
        if name not in known:
            raise ValueError(f"given: expected columns of X, got {name!r}")
    wanted = {known[name].of or name for name in names}
    return tuple(
        column for column in schema.columns if column.name in wanted and column.kind != "constant"
    )


def pieces_of(schema: Schema, columns: Collection[Column]) -> Pieces:
    """The codes, numbers and angles that some columns became."""
    names = {column.name for column in columns}
    parts = schema.coded, schema.valued, schema.angular
    return Pieces(
        *(tuple(i for i, column in enumerate(part) if column.name in names) for part in parts)
    )


def units_of(schema: Schema, columns: Collection[Column], rows: Rows) -> Tensor:
    """What to add to the log-density of some columns so that it is one in their units.

    Args:
        schema: All columns.
        columns: Those whose density it is.
        rows: The rows.

    Returns:
        The terms, in nats, with shape (n,).
    """
    total = torch.zeros(len(rows), dtype=torch.float64)
    code = {column.name: k for k, column in enumerate(schema.coded)}
    for column in columns:
        units = torch.tensor(column.code_units, dtype=torch.float64)
        if column.name in code:
            total = total + units[rows.codes[:, code[column.name]]]
        elif column.kind == "angle":
            total = total + units[0]
    return total
