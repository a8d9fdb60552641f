"""Equal rows as one that counts as often: a row that is repeated is no other evidence."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from maskedflow.columns.rows import Layout, Rows
from maskedflow.data.split import row_hashes

__all__ = ["distinct_rows", "effective"]

_RARE = 10
"""How many times more cells than rows a grid has if equal rows are no coincidence."""


def distinct_rows(
    layout: Layout, rows: Rows, c: Tensor | None = None, weight: Tensor | None = None
) -> tuple[Rows, Tensor | None, Tensor]:
    """Takes equal rows, with equal contexts, for one that weighs as much as all of them.

    Metropolis steps, bootstraps and whole weights repeat rows. Dealt one by one they would judge
    what was fitted to them. Rows are left apart where some are equal by chance, for they have no
    number, or only numbers on grids of few cells.

    Args:
        layout: What the columns are.
        rows: The rows.
        c: Their contexts, with shape (n, context), or none.
        weight: How much each row counts, with shape (n,); all alike if None.

    Returns:
        The possible rows that count, each in the place of its first occurrence, their contexts, and
        their weights, of which the largest is 1. Neither weights twice as large nor all rows twice
        change any of it.

    Example:
        >>> x = torch.tensor([[1.5], [2.5], [1.5]], dtype=torch.float64)
        >>> none = torch.zeros(3, 0)
        >>> rows = Rows(none.long(), x, x > 0, none.double(), none.bool(), x[:, 0] < 0)
        >>> layout = Layout((), (None,), (), (0.0,), (None,), (None,))
        >>> distinct_rows(layout, rows)[2]
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    weight = rows.values.new_ones(len(rows)) if weight is None else weight.double()
    weight = torch.where(rows.impossible, 0, weight)
    # Single precision: the scale of the weights leaves no trace in what is rounded.
    weight = (weight / weight.max()).float().double() if weight.gt(0).any() else weight
    kept = weight.nonzero()[:, 0]
    rows, c, weight = rows[kept], None if c is None else c[kept], weight[kept]
    if not len(rows):
        return rows, c, weight
    alone = torch.where(_tells(layout, rows), -1, torch.arange(len(rows)))
    parts = [rows.codes, rows.values, rows.observed, rows.angles, rows.angles_observed]
    parts += [alone[:, None], *([] if c is None else [c])]
    first, which = _first_of_equals(parts)
    weight = torch.zeros(len(first), dtype=torch.float64).index_add_(0, which, weight)
    weight = (weight / weight.max()).float().double()
    return rows[first], None if c is None else c[first], weight


def effective(weight: Tensor) -> float:
    r"""The number of rows of equal weight that tell as much, :math:`(\sum w)^2 / \sum w^2`.

    References:
        | A Note on Importance Sampling using Standardized Weights (Kong, 1992)
    """
    return float(weight.sum().square() / weight.square().sum())


def _tells(layout: Layout, rows: Rows) -> Tensor:
    """Whether each row is hardly equal to another one by chance."""
    sizes = [
        math.log(len(column.unique())) if step else math.inf
        for column, step in zip(rows.values.unbind(1), layout.steps, strict=True)
    ]
    cells = torch.where(rows.observed, torch.tensor(sizes, dtype=torch.float64), 0).sum(dim=1)
    return (cells > math.log(_RARE * len(rows))) | rows.angles_observed.any(dim=1)


def _first_of_equals(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The first of equal rows, in order, and for each row which one of these it is."""
    hashes = row_hashes(column.numpy() for part in parts for column in part.unbind(1))
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return torch.from_numpy(first[order]), torch.from_numpy(place[which])
