"""Kinds of members: how each is fitted, and fitted again to other rows."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskedflow.flows.stack import stacking_weights

from .member import Member, front_plan
from .mixture import fit_mixture
from .plan import assemble
from .task import OPERATIONS, Task
from .weighed import effective

_RIDGES = (1e-9, 1e-6, 1e-4, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
_COMPONENTS = (2, 4, 8, 16, 32, 64, 128)
_MIXED, _PARTS = 2_000_000, 20_000_000
"""Most cells that a mixture is fitted to, and most rows times components."""


class Kind(abc.ABC):
    """A kind of members of a stack; what :meth:`fit` settles counts for :meth:`again`, too."""

    label: str
    spent = 0.0
    """The work that was done so far."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @abc.abstractmethod
    def fit(
        self, rows: Tensor, others: Tensor, beside: Sequence[Tensor], work: float
    ) -> Member | None:
        """Fits a member to some rows; others judge, given what members beside it say of them."""

    @abc.abstractmethod
    def again(self, rows: Tensor) -> Member:
        """Fits a member to other rows, as it was settled."""

    @property
    def again_work(self) -> float:
        """The work that this takes."""
        return 0.0


class Margins(Kind):
    """Each column by itself."""

    label = "independent columns"

    def fit(
        self, rows: Tensor, others: Tensor, beside: Sequence[Tensor], work: float
    ) -> Member | None:
        return self.again(rows)

    def again(self, rows: Tensor) -> Member:
        front = self.task.front("margins", rows)
        return Member(front_plan(front), assemble(self.task.layout, front).double())


class Gaussian(Kind):
    """A Gaussian, of columns as they are or made normal, with the ridge that others like best."""

    def __init__(self, task: Task, front: str) -> None:
        super().__init__(task)
        self.front, self.ridge = front, _RIDGES[0]
        self.label = "Gaussian" if front == "whiten" else "Gaussian of normal scores"

    def fit(
        self, rows: Tensor, others: Tensor, beside: Sequence[Tensor], work: float
    ) -> Member | None:
        once = self.task.whitening_work(len(rows))
        if 2 * once > work:
            return None
        before = self.task.front(self.front, rows, self.ridge)[:-1]
        part, judges = self.task.through(before, rows), self.task.all[others]
        value, found = -math.inf, list[Member]()
        for ridge in _RIDGES:
            self.spent += once
            front = [*before, self.task.whiten(part, rows, ridge)]
            density = assemble(self.task.layout, front).double()
            now = judges.mean(self.task.log_probs(density, others))
            if found and not now > value:
                break
            value, self.ridge = now, ridge
            found.append(Member(front_plan(front), density))
        return found[-1]

    def again(self, rows: Tensor) -> Member:
        front = self.task.front(self.front, rows, self.ridge)
        return Member(front_plan(front), assemble(self.task.layout, front).double())

    @property
    def again_work(self) -> float:
        return self.task.whitening_work(len(self.task.all))


class Mixture(Kind):
    """A mixture of Gaussians of whitened rows, as large as helps others.

    By itself a mixture can lose all for a row far out, which others in the stack can bear.
    """

    label = "mixture of Gaussians"

    def __init__(self, task: Task, ridge: float) -> None:
        super().__init__(task)
        self.ridge, self.components, self.slopes = ridge, 1, False

    def fit(
        self, rows: Tensor, others: Tensor, beside: Sequence[Tensor], work: float
    ) -> Member | None:
        task = self.task
        if task.patterns:
            return None
        front = task.front("whiten", rows, self.ridge)
        self.spent += task.whitening_work(len(rows))
        whole = task.through(front, rows[: _MIXED // task.features])
        judges = task.all[others]
        value, found = -math.inf, None
        for slopes in (False, True) if task.given else (False,):
            worse, size = 0, task.features + slopes * task.given
            for components in _COMPONENTS:
                part = whole[torch.arange(min(len(whole), _PARTS // components))]
                if components * 4 * (size + 1) > effective(part.weight) or worse == 2:
                    break
                per_step = components * (3 * len(part) * size**2 / OPERATIONS + 2e-4)
                if work - self.spent < 20 * per_step:
                    break
                c = part.split.context if slopes else None
                base, steps = fit_mixture(part.split.x, part.weight, components, task.seed, c)
                self.spent += (steps + 5) * per_step
                density = assemble(task.layout, front, (), base).double()
                log_probs = torch.stack([*beside, task.log_probs(density, others)], dim=1)
                weights = stacking_weights(log_probs, judges.weight)
                now = judges.mean((log_probs + weights.log()).logsumexp(dim=1))
                worse = 0 if now > value else worse + 1
                if now > value:
                    plan = {"components": components} | ({"slopes": True} if slopes else {})
                    value, found = now, Member(front_plan(front) | plan, density)
                    self.components, self.slopes, self._again = components, slopes, per_step * 40
        return found

    def again(self, rows: Tensor) -> Member:
        task = self.task
        front = task.front("whiten", rows, self.ridge)
        part = task.through(front, rows[: _MIXED // task.features])
        part = part[torch.arange(min(len(part), _PARTS // self.components))]
        c = part.split.context if self.slopes else None
        base, _ = fit_mixture(part.split.x, part.weight, self.components, task.seed, c)
        plan = {"components": self.components} | ({"slopes": True} if self.slopes else {})
        density = assemble(task.layout, front, (), base).double()
        return Member(front_plan(front) | plan, density)

    @property
    def again_work(self) -> float:
        return self._again
