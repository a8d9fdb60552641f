"""Kinds of members: how each is fitted, and fitted again to other rows."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from maskedflow.data import Split
from maskedflow.files import blame
from maskedflow.flows.stack import stacking_weights
from maskedflow.transforms import LazyTransform

from .boosting import fit_boosted, least_work
from .checkpoints import Checkpoints, Finished, Step
from .em import FEWEST, Grown, Sample, grow
from .member import Member, front_plan
from .mixture import MixtureOfRegressions
from .plan import assemble
from .task import FRONTS, Task
from .together import by_one_thread

_RIDGES = (1e-9, 1e-6, 1e-4, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
_MIXED = 2_000_000
"""Most cells that a mixture is fitted to."""
_FEWEST_BOOSTED, _FEWEST_LEAVES = 150, 80
"""Rows below which no trees are boosted, and no forest is fitted."""
_SHORT = 0.1
"""The nats by which a mixture may miss what was reached before, and not grow once more."""
_MULTIPLICATIONS = 2.5e9
"""Those of expectation-maximisation that are one unit of work."""


class Kind(abc.ABC):
    """A kind of members of a stack; what :meth:`fit` settles counts for :meth:`again`, too."""

    label: str
    SETTLED: ClassVar[tuple[str, ...]] = ()
    """The names of what :meth:`fit` settles, plain values."""
    spent = 0.0
    """The work that was done so far."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @abc.abstractmethod
    def fit(
        self, rows: Tensor, others: Tensor, beside: Sequence[Tensor], work: float
    ) -> Member | None:
        """Fits a member to some rows; others judge, given what members beside it say of them."""

    def fit_once(
        self,
        checkpoints: Checkpoints,
        rows: Tensor,
        others: Tensor,
        beside: Sequence[Tensor],
        work: float,
    ) -> Member | None:
        """Does the same, unless it was done before the search was killed."""
        names = "spent", *self.SETTLED

        def fitted() -> Step:
            member = self.fit(rows, others, beside, work)
            plain, tensors = ({"plan": None}, {}) if member is None else member.step
            return plain | {name: getattr(self, name) for name in names}, tensors

        done = _once(checkpoints, self.label, fitted)
        with blame(done.path, "not a step of this search"):
            for name in names:
                setattr(self, name, done.plain[name])
        return Member.of(done, self.task.layout, self.task.given)

    @abc.abstractmethod
    def again(self, rows: Tensor) -> Member:
        """Fits a member to other rows, as it was settled."""

    def judged(self, checkpoints: Checkpoints, fold: int, rows: Tensor, others: Tensor) -> Tensor:
        """The log-density of others, a fold, under a member that is fitted so to the rest."""

        def judge() -> Step:
            return {}, {"log_probs": self.task.log_probs(self.again(rows).density, others)}

        return _once(checkpoints, f"{self.label} {fold}", judge).tensors["log_probs"]

    def again_once(self, checkpoints: Checkpoints, rows: Tensor) -> Member:
        """Fits to all rows, unless it was done before the search was killed."""
        done = _once(checkpoints, f"{self.label} all", lambda: self.again(rows).step)
        member = Member.of(done, self.task.layout, self.task.given)
        assert member is not None
        return member

    @property
    def again_work(self) -> float:
        """The work that this takes."""
        return 0.0


def _once(checkpoints: Checkpoints, name: str, step: Callable[[], Step]) -> Finished:
    """Takes a step with one thread, unless it was taken before the search was killed."""
    return checkpoints.once(name, lambda: by_one_thread(step))


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

    SETTLED = ("ridge",)

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
    """A mixture of Gaussians, as large as helps others; weights and means may follow the context.

    By itself a mixture can lose all for a row far out, which others in the stack can bear.
    """

    SETTLED = ("components", "slopes", "smoothing", "reached", "growing")

    def __init__(self, task: Task, front: str, ridge: float = 0.0) -> None:
        super().__init__(task)
        self.front, self.ridge = front, ridge
        self.components, self.slopes, self.growing = 0, False, 0.0
        self.smoothing, self.reached = (0.0, 0.0), -math.inf
        self.label = "mixture of Gaussians" + (" of normal scores" if front == "margins" else "")

    def fit(
        self, rows: Tensor, others: Tensor, beside: Sequence[Tensor], work: float
    ) -> Member | None:
        task = self.task
        if len(rows) < FEWEST * task.features:
            return None  # it would be one Gaussian, after seconds where there are many columns
        front = task.front(self.front, rows, self.ridge)
        samples = [_sample(task.through(front, part)) for part in (rows[: self._most], others)]
        judges = task.all[others]
        value, found = -math.inf, None
        for slopes in (False, True) if task.given else (False,):
            worse, before, alone = 0, self.spent, -math.inf
            for grown in self._grow(*samples, slopes=slopes):
                member = self._member(front, grown.mixture, slopes)
                own = task.log_probs(member.density, others)
                log_probs = torch.stack([*beside, own], dim=1)
                weights = stacking_weights(log_probs, judges.mass)
                now = judges.mean((log_probs + weights.log()).logsumexp(dim=1))
                # One that is not yet of use beside the others may be when it has grown.
                worse = 0 if now > value or grown.score > alone else worse + 1
                alone = max(alone, grown.score)
                taken = grown.work / _MULTIPLICATIONS
                self.spent = before + taken
                if now > value:
                    value, found = now, member
                    self.components, self.slopes = len(grown.mixture.logits), slopes
                    self.smoothing, self.growing = grown.smoothing, taken
                    self.reached = judges.mean(own)
                if worse == 2 or 2 * taken > work - self.spent:
                    break
        return found

    def again(self, rows: Tensor) -> Member:
        front = self.task.front(self.front, rows, self.ridge)
        part = rows[: self._most]
        sample = _sample(self.task.through(front, part))
        for grown in self._grow(sample, sample, slopes=self.slopes, smoothing=self.smoothing):
            member, count = self._member(front, grown.mixture, self.slopes), len(grown.mixture.loc)
            if count < self.components:
                continue  # of fewer rows there may be no mixture so large
            # Other rows may split otherwise, and leave one component where there should be two.
            scores = self.task.log_probs(member.density, part)
            is_short = self.task.all[part].mean(scores) < self.reached - _SHORT
            if not is_short or count >= 2 * self.components:
                break
        return member

    @property
    def again_work(self) -> float:
        return self.growing

    @property
    def _most(self) -> int:
        return _MIXED // self.task.features

    def _grow(self, *samples: Sample, **options: Any) -> Iterator[Grown]:
        levels = sum(self.task.layout.levels)
        return grow(*samples, levels=levels, present=self.task.present, **options)

    def _member(
        self, front: list[LazyTransform], mixture: MixtureOfRegressions, slopes: bool
    ) -> Member:
        plan: dict[str, Any] = front_plan(front) | {"components": len(mixture.logits)}
        plan |= {"slopes": True} if slopes else {}
        plan |= {} if mixture.tables is None else {"tables": True}
        return Member(plan, assemble(self.task.layout, front, (), mixture).double())


class Chain(Kind):
    """A chain of normal scores, each given those before it by boosted trees."""

    label = "boosted chain"
    SETTLED = ("work", "taken")
    work = taken = 0.0

    def fit(
        self, rows: Tensor, others: Tensor, beside: Sequence[Tensor], work: float
    ) -> Member | None:
        task = self.task
        if task.rows < _FEWEST_BOOSTED or task.features + task.given < 2:
            return None
        levels = task.layout.levels
        given = task.given - sum(levels) + len(levels)
        if work < least_work(len(rows), task.features, given):
            return None
        self.work = work
        before = self.spent
        member = self.again(rows)
        self.taken = self.spent - before
        return member

    def again(self, rows: Tensor) -> Member:
        task, front = self.task, self.task.front("margins", rows)
        part = task.through(front, rows)
        ends = [task.through(front, rows, end).x for end in task.ends]
        chain, taken = fit_boosted(
            part.x,
            part.context,
            task.observed[rows],
            part.mass,
            levels=task.layout.levels,
            present=task.present,
            cells=(ends[0], ends[1]),
            work=self.work,
            seed=task.seed,
        )
        self.spent += taken
        plan = front_plan(front) | {"chain": chain.size._asdict()}
        return Member(plan, assemble(task.layout, front, (), chain).double())

    @property
    def again_work(self) -> float:
        return self.taken


class Products(Kind):
    """A mixture of products behind a front: a kernel density, or an adversarial forest.

    Args:
        task: The rows.
        label: Its name.
        front: Its front.
        fit: What fits a mixture.
        most: Most rows that it is fitted to.
        costs: The work of a row, and of each of its columns.
    """

    SETTLED = ("settled",)

    def __init__(
        self,
        task: Task,
        label: str,
        front: str,
        fit: Callable[..., Any],
        most: int,
        costs: tuple[float, float],
    ) -> None:
        super().__init__(task)
        self.label, self.front, self.fit_products = label, front, fit
        self.most, self.costs = most, costs
        self.settled: Any = None

    def fit(
        self, rows: Tensor, others: Tensor, beside: Sequence[Tensor], work: float
    ) -> Member | None:
        whitens_gaps = FRONTS[self.front][1] and self.task.patterns > 0
        if whitens_gaps or self.task.rows < _FEWEST_LEAVES or self.first_work > work:
            return None
        self.spent += self.first_work
        return self.again(rows)

    def again(self, rows: Tensor) -> Member:
        task, front = self.task, self.task.front(self.front, rows, _RIDGES[0])
        part = task.through(front, rows)
        mixture, self.settled = self.fit_products(
            part.x,
            part.context,
            task.observed[rows],
            part.mass,
            task.present,
            task.layout.levels,
            task.seed,
            self.settled,
        )
        plan: dict[str, Any] = front_plan(front)
        truncated = mixture.low is not None
        plan["products"] = {"components": len(mixture.log_weight), "truncated": truncated}
        return Member(plan, assemble(task.layout, front, (), mixture).double())

    @property
    def first_work(self) -> float:
        """The work of the first fit, in which all is settled."""
        return 1.0 + 3 * self.again_work

    @property
    def again_work(self) -> float:
        columns = self.task.features + len(self.task.layout.levels)
        row, cell = self.costs
        return 0.1 + min(len(self.task.all), self.most) * (row + cell * columns)


def _sample(part: Split) -> Sample:
    return Sample(part.x, part.mass, part.context)
