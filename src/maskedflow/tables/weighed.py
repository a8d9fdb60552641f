"""Rows that weigh differently: equal ones as one, and training on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from maskedflow.columns.rows import Layout, Rows
from maskedflow.data import Split
from maskedflow.data.split import row_hashes
from maskedflow.training import History, TrainConfig, evaluate, fit
from maskedflow.training.weighted import Weighted

_RARE = 10
"""How many times more cells than rows a grid has if equal rows are no coincidence."""


@dataclass(frozen=True)
class Weighed:
    """Rows that weigh differently."""

    split: Split
    weight: Tensor

    @property
    def context(self) -> int:
        """The number of context features."""
        return 0 if self.split.context is None else self.split.context.shape[1]

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, rows: Tensor) -> Weighed:
        return Weighed(self.split[rows], self.weight[rows])

    def with_x(self, x: Tensor) -> Weighed:
        """The same contexts and weights with other numbers."""
        return Weighed(Split(x, self.split.context), self.weight)

    def mean(self, log_prob: Tensor) -> float:
        """The mean of a number for each row."""
        return float((self.weight * log_prob).sum() / self.weight.sum())

    def score(self, density: nn.Module) -> float:
        """The mean log-density, in nats."""
        return self.mean(evaluate(density, self.split))

    def single(self, weighed: bool) -> Split:
        """The rows in single precision, with their weights, if asked for, after the context."""
        c = self.split.context
        if weighed:
            weight = (self.weight / self.weight.mean())[:, None]
            c = weight if c is None else torch.cat([c, weight.to(c)], dim=1)
        return Split(self.split.x, c).in_float32()


def train(
    density: nn.Module,
    rows: Weighed,
    validation: Weighed,
    config: TrainConfig,
    stopped: Callable[[], bool] | None = None,
) -> History:
    """Trains by weighted log-likelihood, in single precision, until validation shows no gain."""
    weighed = any(bool((part.weight != part.weight[0]).any()) for part in (rows, validation))
    trained = Weighted(density) if weighed else density
    parts = rows.single(weighed), validation.single(weighed)
    return fit(trained, *parts, config, stopped=stopped)


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


def effective(weight: Tensor) -> float:
    """The number of rows of equal weight that are worth as much (Kong, 1992)."""
    return float(weight.sum().square() / weight.square().sum())


def _is_distinctive(layout: Layout, rows: Rows) -> Tensor:
    """Whether each row is hardly equal to another one by chance."""
    sizes = [
        math.log(len(column.unique())) if step else math.inf
        for column, step in zip(rows.values.unbind(1), layout.steps, strict=True)
    ]
    cells = torch.where(rows.observed, torch.tensor(sizes, dtype=torch.float64), 0).sum(dim=1)
    return (cells > math.log(_RARE * len(rows))) | rows.angles_observed.any(dim=1)
