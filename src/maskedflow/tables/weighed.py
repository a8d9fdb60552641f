"""Equal rows as one that weighs as much as all of them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from maskedflow.columns.rows import Layout, Rows
from maskedflow.data.copies import row_hashes

_RARE = 10
"""How many times more cells than rows a grid has if equal rows are no coincidence."""


def distinct_rows(
    layout: Layout, rows: Rows, c: Tensor | None = None, weight: Tensor | None = None
) -> tuple[Rows, Tensor | None, Tensor]:
    """Replaces equal rows, with equal contexts, by one that weighs as much as all of them.

    Metropolis steps, bootstraps and whole weights repeat rows. Split one by one they would validate
    what was fitted to them. Rows are left apart where some are equal by chance, for they have no
    number, or only numbers on grids of few cells.

    Returns the possible rows that count, each in the place of its first occurrence, their contexts,
    and their weights, of which the largest is 1. Neither weights twice as large nor all rows twice
    change any of it.
    """
    weight = rows.values.new_ones(len(rows)) if weight is None else weight.double()
    weight = torch.where(rows.impossible, 0, weight)
    weight = _relative(weight) if weight.gt(0).any() else weight
    kept = weight.nonzero()[:, 0]
    rows, c, weight = rows[kept], None if c is None else c[kept], weight[kept]
    if not len(rows):
        return rows, c, weight
    alone = torch.where(_is_distinctive(layout, rows), -1, torch.arange(len(rows)))
    parts = [rows.codes, rows.values, rows.observed, rows.angles, rows.angles_observed]
    parts += [alone[:, None], *([] if c is None else [c])]
    hashes = row_hashes(column.numpy() for part in parts for column in part.unbind(1))
    _, firsts, which = np.unique(hashes, return_index=True, return_inverse=True)
    total = torch.zeros_like(weight).index_add_(0, torch.from_numpy(firsts[which]), weight)
    first = torch.from_numpy(np.sort(firsts))
    return rows[first], None if c is None else c[first], _relative(total[first])


def _relative(weight: Tensor) -> Tensor:
    """The largest is 1; in single precision, so that the scale leaves no trace in rounding."""
    return (weight / weight.max()).float().double()


def _is_distinctive(layout: Layout, rows: Rows) -> Tensor:
    """Whether each row is hardly equal to another one by chance."""
    sizes = [
        math.log(len(column.unique())) if step else math.inf
        for column, step in zip(rows.values.unbind(1), layout.steps, strict=True)
    ]
    cells = torch.where(rows.observed, torch.tensor(sizes, dtype=torch.float64), 0).sum(dim=1)
    return (cells > math.log(_RARE * len(rows))) | rows.angles_observed.any(dim=1)
