"""Something simpler beside the density of a table."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedflow.columns import Rows, Schema, to_rows
from maskedflow.data import TableSplit, conditional_gaussian, independent

from .matrix import Side


def simpler(
    schemas: tuple[Schema, ...], train: TableSplit, test: TableSplit
) -> tuple[str, Tensor | None]:
    """What it is, and the log-density of test rows: None if a covariance is singular.

    Where all columns are numbers that are always there, it is one Gaussian with a full covariance,
    given the context if there is one. Else it is :func:`~maskedflow.data.independent`.

    Args:
        schemas: What the columns are, and those of the context, if there are any.
        train: The rows it is fitted to.
        test: The rows it is evaluated at.
    """
    if all(map(_is_numeric, schemas)):
        x, *c = (
            (_middles(schema, to_rows(schema, one)), _middles(schema, to_rows(schema, other)))
            for schema, one, other in zip(
                schemas, (train.x, train.context), (test.x, test.context), strict=False
            )
        )
        return "full Gaussian", conditional_gaussian(x, c[0] if c else (None, None))
    side = Side(schemas[0])
    found = independent(side.known.columns, side.matrix(train.x), side.matrix(test.x))
    return "independent columns", torch.from_numpy(found)


def _is_numeric(schema: Schema) -> bool:
    """Whether a row is a point of a space: all columns are numbers, always there, without atoms."""
    return bool(schema.free) and all(c.part == "values" and not c.has_code for c in schema.free)


def _middles(schema: Schema, rows: Rows) -> Tensor:
    """Numbers, and of those on a grid the middles of their cells."""
    return rows.values + torch.tensor(schema.steps, dtype=torch.float64) / 2
