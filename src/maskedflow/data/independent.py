"""The density that takes columns for independent: what a table of mixed columns has to beat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from maskedflow.transforms import NormalScores

Rows = NDArray[Any]
Vector = NDArray[np.float64]


class Column(Protocol):
    """What has to be known of a column."""

    @property
    def levels(self) -> tuple[Any, ...]:
        """Its categories, of which the cells are the places; none of a number."""

    @property
    def step(self) -> float:
        """The step of the grid that its numbers are on, 0 if there is none."""

    @property
    def atoms(self) -> tuple[float, ...]:
        """Numbers that have a probability of their own."""


PLACES = (np.arange(8) + 0.5) / 8
"""The places in a cell of a grid at which its density is taken."""


def independent(
    columns: Sequence[Column], train: Rows, test: Rows, weight: Vector | None = None
) -> Vector:
    r"""Computes the log-density of test rows under a product of their columns' own densities.

    .. math:: \log p(x) = \sum_j \log P(s_j) + \sum_{j \text{ is a number}} \log p_j(x_j)

    The state :math:`s_j` of a cell is its category, or whether it is missing, at an atom or a
    number; its probability is its share of the training rows, after half a row has been added to
    each. Training rows count as `weight` says, shape (n,), for as many rows as they are worth.
    Numbers have the density whose normal scores they are, those on a grid the mean density of their
    cell. Conditions are left out.

    Example:
        >>> import pyarrow as pa
        >>> from maskedflow.columns import Column
        >>> column = Column("", "categorical", pa.string(), levels=("a", "b"))
        >>> x = np.array([[0.0], [0.0], [1.0]])
        >>> np.exp(independent([column], x, x[1:]))
        array([0.625, 0.375])
    """
    total = np.zeros(len(test))
    mass = np.ones(len(train)) if weight is None else np.asarray(weight, np.float64)
    train, mass = train[mass > 0], mass[mass > 0]
    mass *= mass.sum() / (mass @ mass)
    for i, column in enumerate(columns):
        before, now = (np.asarray(rows[:, i], np.float64) for rows in (train, test))
        total += _column(column, before, now, mass)
    return total


def _column(column: Column, train: Vector, test: Vector, mass: Vector) -> Vector:
    before, now = _states(column, train), _states(column, test)
    # A state that no row has, before or now, is none that could have been.
    counts = np.bincount(before, mass, minlength=now.max(initial=0) + 1)
    known = np.union1d(before, now)
    shares = (counts + 0.5) / (mass.sum() + 0.5 * max(len(known), len(column.levels)))
    score: Vector = np.log(shares)[now]
    if column.levels:
        return score
    here = now == 0
    score[here] += _numbers(column.step, train[before == 0], test[here], mass[before == 0])
    if column.step:
        score[now > 1] -= math.log(column.step)
    return score


def _states(column: Column, cells: Vector) -> NDArray[np.int64]:
    """A category, or one more than all if it is missing; a number 0, a missing one 1, atoms 2."""
    missing = np.isnan(cells)
    if column.levels:
        return np.where(missing, len(column.levels), cells).astype(np.int64)
    found = missing.astype(np.int64)
    for i, atom in enumerate(column.atoms):
        found[cells == atom] = 2 + i
    return found


def _numbers(step: float, train: Vector, test: Vector, mass: Vector) -> Vector:
    """The log-density of numbers, whose normal scores are fitted to others."""
    if step:
        train = train + step * np.random.default_rng(0).random(len(train))
    scores = NormalScores.fit(
        torch.from_numpy(train[:, None].copy()), weight=torch.from_numpy(mass)
    )()
    places = step * PLACES if step else np.zeros(1)
    x = torch.from_numpy((test[:, None] + places).reshape(-1, 1))
    z, ladj = scores.call_and_ladj(x)
    log_prob = -0.5 * z[:, 0] ** 2 - 0.5 * math.log(2 * math.pi) + ladj
    total: Vector = log_prob.view(-1, len(places)).logsumexp(1).numpy()
    return total - math.log(len(places))
