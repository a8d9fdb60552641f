"""What a density is conditional on: any numbers, no density is asked of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import accumulate

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.columns.cells import is_missing, numbers
from maskedflow.columns.convert import to_rows
from maskedflow.columns.schema import Schema

from .density import number_context

Numbers = NDArray[np.float64]


def context_matrix(
    schema: Schema,
    table: pa.Table,
    scale: Callable[[Tensor], Tensor] | None = None,
    start: int = 0,
) -> Tensor:
    r"""A table of conditions as a matrix, in the order of :func:`number_context`.

    Codes become one-hot vectors, angles their sines and cosines, and numbers are scaled. A number
    may be any: between the cells of a grid, out of the bounds and beside the atoms of those in
    `fit`. One between the levels :math:`l_k` of an ordinal column, or beyond them, has

    .. math:: w_k = 1 - t, \quad w_{k+1} = t, \quad t = \frac{x - l_k}{l_{k+1} - l_k}

    in place of ones, so that what is linear in them is interpolated.

    Numbers go through `scale`, those that are missing with 0 behind it. Errors count rows from
    `start`.

    Raises:
        ValueError: If a category was not there in `fit`, or a value is missing that never was; the
            message names column, row and value.

    Warns:
        UserWarning: If a column that was the same in all rows of `fit`, or repeated another, is
            not so: it cannot count.

    Example:
        >>> schema = Schema.infer(pa.table({"dose": [5.0] * 9 + [10.0] * 9}))
        >>> context_matrix(schema, pa.table({"dose": [5.0, 9.0]}))
        tensor([[1.0000, 0.0000],
                [0.2000, 0.8000]], dtype=torch.float64)
    """
    rows = to_rows(schema, table, start, strict=False)
    if rows.impossible.any():
        check_context(schema, table, start)
    for column in schema.fixed:
        other = column.encode(table).impossible
        if other.any():
            row = start + int(other.argmax()) + 1
            warnings.warn(
                f"context: column {column.name!r}, row {row}: in fit it was {column.summary}, so "
                "that no other value counts: it is ignored",
                stacklevel=2,
            )
    values = rows.values if scale is None else scale(rows.values)
    for k, column in enumerate(schema.valued):
        if column.missing:
            values[torch.from_numpy(is_missing(table.column(column.name))), k] = 0
    c = number_context(schema.layout, rows, values)
    assert c is not None
    firsts = [0, *accumulate(schema.code_levels)]
    for first, column in zip(firsts, schema.coded, strict=False):
        if (levels := column.scale) is not None:
            x = numbers(column.name, table.column(column.name))
            known = ~np.isnan(x)
            weights = torch.from_numpy(_between(x[known], levels))
            c[torch.from_numpy(known), first : first + len(column.levels)] = weights
    return c


def strange_context(schema: Schema, table: pa.Table) -> NDArray[np.bool_]:
    """Which rows have a category that was not there in `fit`, or miss a value that never was."""
    found: NDArray[np.bool_] = to_rows(schema, table, strict=False).impossible.numpy()
    return found


def check_context(schema: Schema, table: pa.Table, start: int = 0) -> None:
    """Refuses what :func:`strange_context` finds.

    Raises:
        ValueError: If there is such a row; the message names column, value and row, which is
            counted from `start`.
    """
    for column in schema.columns:
        strange = column.encode(table, start, strict=False).impossible
        if strange.any():
            cells, row = table.column(column.name), int(strange.argmax())
            found = cells[row].as_py()
            what = f"expected a category that was there in fit, found {found!r}"
            if is_missing(cells)[row]:
                what = "missing, as in no row of fit; fill it in"
            raise ValueError(f"context: column {column.name!r}, row {start + row + 1}: {what}")


def free_numbers(schema: Schema) -> Schema:
    """The same columns, whose numbers may be any."""
    return Schema(tuple(column.free() for column in schema.columns), schema.missing)


def _between(x: Numbers, known: Numbers) -> Numbers:
    """The weights of levels, (n, L), whose mean is x."""
    weights = np.zeros((len(x), len(known)))
    if len(known) == 1:
        return weights + 1
    order, rows = np.argsort(known), np.arange(len(x))
    up = np.searchsorted(known[order], x).clip(1, len(known) - 1)
    left, right = order[up - 1], order[up]
    share = (x - known[left]) / (known[right] - known[left])
    weights[rows, left], weights[rows, right] = 1 - share, share
    return weights
