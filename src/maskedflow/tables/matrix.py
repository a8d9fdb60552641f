"""Tables as matrices of numbers, and back: what a report compares, and a baseline needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.columns import Schema, complete, ignored, kind_of, to_arrow, to_rows, to_table
from maskedflow.data import TableSplit, conditional_gaussian, independent

from .context import check_context, free_numbers

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """A table whose columns that say something are those of a matrix of numbers.

    A category is its place among the levels, a date the time since its origin, a gap NaN.
    """

    schema: Schema

    @cached_property
    def known(self) -> Schema:
        """The schema without columns that are no part of the density."""
        return Schema(self.schema.free, self.schema.missing)

    def matrix(self, table: pa.Table) -> Matrix:
        """A table as a matrix, shape (n, columns)."""
        columns = self.known.columns
        return np.stack([one.as_numbers(table.column(one.name)) for one in columns], 1)

    def table(self, matrix: Matrix) -> pa.Table:
        """A matrix as a table, with its constants and duplicates."""
        pairs = zip(self.known.columns, matrix.T, strict=True)
        known = pa.table({column.name: column.from_numbers(x) for column, x in pairs})
        return to_table(self.schema, to_rows(self.known, known))


class Tables:
    """The table that a density is of, and the one that it is given, as one matrix."""

    def __init__(self, schema: Schema, given: Schema | None) -> None:
        for role, one in (("X", schema), ("context", given)):
            if one is not None and not one.free:
                raise ValueError(f"{role}: expected a column that is not constant, found none")
        self.main = Side(schema)
        self.given = None if given is None else Side(free_numbers(given))

    def rows(
        self, X: Any, context: Any, name: str
    ) -> tuple[Matrix, dict[str, str], NDArray[np.int64]]:
        """Rows that have a density, what is to be said of others, and the places of the former."""
        table, other = to_arrow(X, name, self.main.schema.names), None
        if table.column_names != list(self.main.schema.names) and kind_of(X) == "numpy":
            table = table.rename_columns(self.main.schema.names)
        if (context is None) != (self.given is None):
            raise ValueError(f"context: got {'none' if context is None else 'one'}, unlike in fit")
        if context is not None and self.given is not None:
            other = to_arrow(context, "context", self.given.schema.names)
            if other.num_rows != table.num_rows:
                wanted = f"expected {table.num_rows} as in {name}"
                raise ValueError(f"context: {other.num_rows} rows, {wanted}")
        notes = {}
        kept = np.ones(table.num_rows, np.bool_)
        if self.main.schema.missing == "drop":
            kept = complete(table, ignored(self.main.schema))
            if not kept.all():
                notes["rows with gaps"] = f"{(~kept).sum():,} of {len(kept):,}, left out"
        table = table.filter(pa.array(kept))
        possible = ~to_rows(self.main.schema, table).impossible.numpy()
        if not possible.all():
            notes["rows of density 0"] = self._why(table, ~possible)
        table = table.filter(pa.array(possible))
        if not table.num_rows:
            raise ValueError(f"{name}: expected rows whose density is not 0, found none")
        found = self.main.matrix(table)
        if other is not None and self.given is not None:
            other = other.filter(pa.array(kept)).filter(pa.array(possible))
            check_context(self.given.schema, other)
            found = np.hstack([found, self.given.matrix(other)])
        return found, notes, kept.nonzero()[0][possible]

    def split(self, matrix: Matrix) -> tuple[pa.Table, pa.Table | None]:
        """The table, and what it is given."""
        width = len(self.main.known.columns)
        table = self.main.table(matrix[:, :width])
        return table, None if self.given is None else self.given.table(matrix[:, width:])

    def _why(self, table: pa.Table, impossible: NDArray[np.bool_]) -> str:
        """How many rows cannot be, and in which columns that shows."""
        table = table.filter(pa.array(impossible))
        counts = {
            column.name: int(column.encode(table).impossible.sum())
            for column in self.main.known.columns
        }
        where = ", ".join(f"{name} ({count:,})" for name, count in counts.items() if count)
        return (
            f"{impossible.sum():,} of {len(impossible):,}, because of "
            f"{where or 'another value than that of a constant or a duplicate'}; they are left out "
            "of all that follows, or the mean log-density would be minus infinity"
        )


def simpler(
    schemas: tuple[Schema, ...], train: TableSplit, test: TableSplit
) -> tuple[str, Tensor | None]:
    """What something simpler is called, and its log-density of test rows.

    Where all columns are numbers that are always there, it is one Gaussian with a full covariance,
    given the context if there is one; None if that is singular. Else it is
    :func:`~maskedflow.data.independent`.
    """
    if all(map(_is_numeric, schemas)):
        pairs = (train.x, test.x), (train.context, test.context)
        x, *c = (
            (_middles(schema, one), _middles(schema, other))
            for schema, (one, other) in zip(schemas, pairs, strict=False)
        )
        return "full Gaussian", conditional_gaussian(x, c[0] if c else (None, None), train.weight)
    side = Side(schemas[0])
    weight = None if train.weight is None else train.weight.numpy()
    found = independent(side.known.columns, side.matrix(train.x), side.matrix(test.x), weight)
    return "independent columns", torch.from_numpy(found)


def _is_numeric(schema: Schema) -> bool:
    """Whether a row is a point of a space: all columns are numbers, always there, without atoms."""
    return bool(schema.free) and all(c.part == "values" and not c.has_code for c in schema.free)


def _middles(schema: Schema, table: pa.Table) -> Tensor:
    """Numbers, and of those on a grid the middles of their cells."""
    return to_rows(schema, table).values + torch.tensor(schema.steps, dtype=torch.float64) / 2
