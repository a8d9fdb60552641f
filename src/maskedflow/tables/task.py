"""What a density of numbers is fitted to: rows, what is observed of them, what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from maskedflow.columns.rows import Layout
from maskedflow.data import Split
from maskedflow.flows import LazyDistribution
from maskedflow.training import evaluate
from maskedflow.transforms import (
    LazyComposedTransform,
    LazyTransform,
    NormalScores,
    Standardize,
)
from maskedflow.transforms.regression import MOST_STEPS, moments
from maskedflow.transforms.whiten import Whiten

from .bounds import column_maps
from .density import present_columns
from .missing import call_layers
from .together import by_one_thread

OPERATIONS = 1e10
"""The operations of linear algebra that are one unit of work."""
FRONTS = {
    "scaled": (False, False),
    "margins": (True, False),
    "whiten": (False, True),
    "scores": (True, True),
}
"""Whether a front makes margins normal, and whether it whitens then."""
_WIDEST = 2000
"""The most columns that are whitened: a score costs the cube of their number."""
_BLOCK = 10_000
"""Rows that are mapped at once."""


@dataclass(frozen=True)
class Task:
    """Distinct rows of numbers to which densities are fitted, given a context or not.

    Args:
        layout: What the columns are.
        all: The rows, of which those on a grid lie somewhere in their cells.
        ends: The lower and the upper ends of these cells, with shape (n, D) both; the rows
            themselves where there is no grid.
        observed: Which numbers are there, with shape (n, D).
        seed: Seed of every random draw.
    """

    layout: Layout
    all: Split
    ends: tuple[Tensor, Tensor]
    observed: Tensor
    seed: int

    @property
    def features(self) -> int:
        """The number of columns."""
        return self.all.x.shape[1]

    @property
    def given(self) -> int:
        """The number of features of the context."""
        return 0 if self.all.context is None else self.all.context.shape[1]

    @cached_property
    def present(self) -> tuple[int | None, ...]:
        """The feature of the context that says whether a number is there; None if it always is."""
        return present_columns(self.layout)[1]

    @cached_property
    def patterns(self) -> int:
        """How many sets of numbers are there together; 0 if all of them always are."""
        return 0 if self.observed.all() else len(self.observed.unique(dim=0))

    @cached_property
    def rows(self) -> float:
        """The number of rows of equal weight that are worth as much."""
        return self.all.effective

    def through(
        self, front: Sequence[LazyTransform], rows: Tensor, x: Tensor | None = None
    ) -> Split:
        """Some of the rows, or x, mapped to the real line and through what comes before a flow."""
        values = self.all.x if x is None else x
        steps = [column_maps(self.layout), *front]
        whole = LazyComposedTransform(*steps)
        found = []
        for block in rows.split(_BLOCK):
            c, observed = self.all[block].context, self.observed[block]
            if observed.all():
                found.append(whole(c)(values[block]))
            else:
                found.append(call_layers(steps, values[block], c, observed)[0])
        return replace(self.all[rows], x=torch.cat(found))

    def front(self, name: str, rows: Tensor, ridge: float = 0.0) -> list[LazyTransform]:
        """Fits what comes before a flow."""
        scores, whiten = FRONTS[name]
        steps: list[LazyTransform] = []
        if name == "scaled":
            steps.append(self.scaled(rows))
        if scores:
            part = self.through([], rows)
            steps.append(NormalScores.fit(part.x, self.observed[rows], part.weight))
        if whiten:
            steps.append(self.whiten(self.through(steps, rows), rows, ridge))
        return steps

    def scaled(self, rows: Tensor) -> Standardize:
        """Standardises each column by the rows that have it."""
        part = self.through([], rows)
        share = part.mass / part.mass.sum()
        return Standardize(*moments(part.x, self.observed[rows], share))

    def whiten(self, part: Split, rows: Tensor, ridge: float) -> Whiten:
        """Fits a linear map that makes rows, mapped already, uncorrelated."""
        x, c = part.x, part.context
        return Whiten.fit(x, c, self.observed[rows], part.weight, ridge=ridge)

    def can_whiten(self, work: float) -> bool:
        """Whether there is work to whiten the columns."""
        return self.features <= _WIDEST and 3 * self.whitening_work(len(self.all)) < work

    def whitening_work(self, rows: int) -> float:
        """The work of fitting such a map, and of judging it."""
        cube = self.features**3
        once = 2 * rows * self.features**2 + 2 * cube
        steps = MOST_STEPS if self.patterns else 1
        return steps * (once + 3 * self.patterns * cube) / OPERATIONS

    def log_probs(self, density: LazyDistribution, rows: Tensor) -> Tensor:
        """The log-density of some of the rows, in nats."""
        return by_one_thread(lambda: evaluate(density, self.all[rows]))
