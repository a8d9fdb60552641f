"""The search for a density of values: members of every kind are fitted, compared and stacked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maskedflow.columns.rows import Layout
from maskedflow.flows import LazyDistribution
from maskedflow.flows.flow import standard_normal
from maskedflow.flows.stack import Stack, stacking_weights
from maskedflow.nn.masked import SMALLEST_CUT
from maskedflow.training import TrainConfig, evaluate
from maskedflow.transforms import LazyComposedTransform, LazyTransform, NormalScores
from maskedflow.transforms.whiten import MOST_STEPS, Whiten

from .bounds import column_maps
from .density import present_columns
from .em import Sample, grow
from .missing import PartialFlow, call_layers
from .plan import assemble, build_layers
from .together import together
from .weighed import Weighed, effective, train
from .work import Budget, batch_size_of, epochs_within, training_work

FLOWS: dict[str, tuple[tuple[str, str], ...]] = {
    "auto": (
        ("whiten", "aaas"),
        ("scores", "aaas"),
        ("margins", "sss"),
        ("whiten", "aaaaa"),
        ("whiten", "asas"),
    ),
    "gaussian": (),
    "maf": (("whiten", "aaaaa"),),
    "nsf": (("whiten", "sss"), ("margins", "sss")),
}
"""What `flow` may be, and the kinds of members that each tries: a front, and layers of a flow."""

_WIDEST = 2000
"""The most columns that are whitened: a score costs the cube of their number."""
_FRONTS = {"whiten": (False, True), "scores": (True, True), "margins": (True, False)}
"""Whether a front makes margins normal, and whether it whitens then."""

_RIDGES = (1e-9, 1e-6, 1e-4, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
_MIXING = 0.15
"""The share of the work that mixtures may do: the next larger one takes twice as much."""
_FEWEST = 200
"""Rows below which no flow is tried."""
_FOLDS = 10
_VALIDATION = 5_000
"""Most rows that validate."""
_CELLS = 10_000_000
"""Most cells that a member is fitted to: more could not be seen within minutes."""
_BLOCK = 10_000
"""Rows that are mapped at once."""
_MIXED = 2_000_000
"""Most cells that a mixture is fitted to."""
_WEIGHTS = 10_000_000
"""Most weights of a flow: tables so wide that one has more have too few rows for it."""
_EPOCHS, _PATIENCE = 30, 12
_MEMBERS, _ENOUGH = 8, 15.0
"""Most members, and the work that each of the later ones may do even if few others are left."""
_LEAST_WEIGHT = 0.02
_MULTIPLICATIONS = 2.5e9
"""Those of expectation-maximisation that are one unit of work."""
_OPERATIONS = 1e10
"""The operations of linear algebra that are one unit of work."""


@dataclass(frozen=True)
class _Member:
    """A density that was fitted, with the plan to build it again."""

    plan: dict[str, Any]
    density: LazyDistribution


@dataclass(frozen=True)
class _Training:
    """How a flow is trained: what comes before it, its layers, on which rows, as what work."""

    name: str
    layers: str
    hidden: int
    rows: Tensor
    validation: Tensor
    config: TrainConfig
    epoch: float


class MemberSearch:
    """The search for the density of distinct rows of values, given their context."""

    def __init__(
        self, layout: Layout, rows: Weighed, observed: Tensor, flow: str, seed: int, work: float
    ) -> None:
        self.layout, self.all, self.observed = layout, rows, observed
        self.flow, self.seed, self.budget = flow, seed, Budget(work)
        self.features = rows.split.x.shape[1]
        self.given = rows.context
        self.ridge = _RIDGES[0]
        self.patterns = 0 if observed.all() else len(observed.unique(dim=0))
        # Otherwise steps go through torch, and Python's lock makes trainings wait for each other.
        absent = any(column is not None for column in present_columns(layout)[1])
        self.is_whole = not absent and bool((rows.weight == rows.weight[0]).all())
        n = len(rows)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        # Members are weighed by the first tenth, and trained on the others.
        self.folds = order.tensor_split(_FOLDS) if n >= _FOLDS else (order,)

    def run(self) -> tuple[Stack, list[dict[str, Any]]]:
        """Tries each kind once, weighs them, and trains more of the best."""
        large = effective(self.all.weight) >= _FEWEST
        rows, validation = self.fold(0)
        others = self.all[validation]
        affordable = 3 * self.whitening_work(len(rows)) < self.budget.left
        can_whiten = affordable and self.features <= _WIDEST
        members = [self.gaussian("whiten", rows, others) if can_whiten else self.margins(rows)]
        if self.flow == "auto" and large and can_whiten:
            members.append(self.gaussian("scores", rows, others))
        mixtures = []
        if self.flow == "auto" and can_whiten and self.observed.all():
            budget = Budget(min(_MIXING * self.budget.total, self.budget.left))
            self.budget.spent += budget.total
            mixtures.append(partial(self.mixture, rows, others, tuple(members), budget))
        kinds = [kind for kind in FLOWS[self.flow] if can_whiten or not _FRONTS[kind[0]][1]]
        trainings: list[_Training] = []
        for number, kind in enumerate(kinds if large else ()):
            work = 0.6 * self.budget.left / (len(kinds) - number + 1)
            trainings += self.settle(*kind, 0, work)
        found = self.make([*mixtures, *(partial(self.train, one) for one in trainings)])
        flows = dict(enumerate(trainings, start=len(members) + len(found) - len(trainings)))
        members += found
        log_probs = torch.stack([evaluate(one.density, others.split) for one in members], dim=1)
        weights = stacking_weights(log_probs, others.weight).tolist()
        kept = [k for k, weight in enumerate(weights) if weight >= _LEAST_WEIGHT]
        groups = {k: [members[k]] for k in kept}
        again = [k for k in kept if k in flows]
        fold = 1
        while again and fold < _MEMBERS and self.budget.left >= 0.1 * self.budget.total:
            wave: list[tuple[int, _Training]] = []
            while fold < _MEMBERS and self.budget.left >= 0.1 * self.budget.total:
                many = Counter(k for k, _ in wave)
                k = max(again, key=lambda k: weights[k] / (len(groups[k]) + many[k] + 1))
                work = self.budget.left / (_MEMBERS - fold)
                work = max(work, min(_ENOUGH, 0.8 * self.budget.left))  # better one that is trained
                wave += [
                    (k, one) for one in self.settle(flows[k].name, flows[k].layers, fold, work)
                ]
                fold += 1
            made = self.make([partial(self.train, training) for _, training in wave])
            for (k, _), member in zip(wave, made, strict=True):
                groups[k].append(member)
        found = [one for group in groups.values() for one in group]
        shares = [weights[k] / len(group) for k, group in groups.items() for _ in group]
        stack = Stack([one.density for one in found], torch.tensor(shares, dtype=torch.float64))
        return stack, [one.plan for one in found]

    def fold(self, number: int) -> tuple[Tensor, Tensor]:
        """Rows to fit, and other rows to validate, as far as there are any."""
        validation = self.folds[number % len(self.folds)]
        if len(self.folds) == 1:
            return validation, validation
        rest = [self.folds[(number + k) % len(self.folds)] for k in range(1, len(self.folds))]
        return torch.cat(rest)[: _CELLS // self.features], validation[:_VALIDATION]

    def through(self, front: list[LazyTransform], rows: Tensor) -> Weighed:
        """Some of the rows, mapped to the real line and through what comes before a flow."""
        steps = [column_maps(self.layout), *front]
        whole = LazyComposedTransform(*steps)
        found = []
        for block in rows.split(_BLOCK):
            given, observed = self.all[block].split, self.observed[block]
            if observed.all():
                found.append(whole(given.context)(given.x))
            else:
                found.append(call_layers(steps, given.x, given.context, observed)[0])
        return self.all[rows].with_x(torch.cat(found))

    def front(self, name: str, rows: Tensor, ridge: float) -> list[LazyTransform]:
        """Fits what comes before a flow."""
        scores, whiten = _FRONTS[name]
        steps: list[LazyTransform] = []
        if scores:
            part = self.through([], rows)
            steps.append(NormalScores.fit(part.split.x, self.observed[rows], part.weight))
        if whiten:
            steps.append(self.whiten(self.through(steps, rows), rows, ridge))
        return steps

    def whiten(self, part: Weighed, rows: Tensor, ridge: float) -> Whiten:
        """Fits a linear map that makes rows, mapped already, uncorrelated."""
        x, c = part.split.x, part.split.context
        return Whiten.fit(x, c, self.observed[rows], part.weight, ridge=ridge)

    def whitening_work(self, rows: int) -> float:
        """The work of fitting such a map, and of judging it."""
        cube = self.features**3
        once = 2 * rows * self.features**2 + 2 * cube
        steps = MOST_STEPS if self.patterns else 1
        return steps * (once + 3 * self.patterns * cube) / _OPERATIONS

    def margins(self, rows: Tensor) -> _Member:
        """Fits each column by itself: what is left where columns are too many to whiten."""
        front = self.front("margins", rows, 0.0)
        return _Member(_plan(front), assemble(self.layout, front).double())

    def gaussian(self, name: str, rows: Tensor, others: Weighed) -> _Member:
        """Fits a Gaussian, with the ridge under which other rows are likeliest."""
        value, found = -math.inf, list[_Member]()
        once = self.whitening_work(len(rows))
        before = self.front(name, rows, self.ridge)[:-1]
        self.budget.spent += once
        part = self.through(before, rows)
        for ridge in _RIDGES:
            self.budget.spent += once
            front = [*before, self.whiten(part, rows, ridge)]
            density = assemble(self.layout, front).double()
            now = others.score(density)
            if found and not now > value:
                break
            value, self.ridge = now, ridge
            found.append(_Member(_plan(front), density))
        return found[-1]

    def mixture(
        self, rows: Tensor, others: Weighed, beside: Sequence[_Member], budget: Budget
    ) -> tuple[list[_Member], float]:
        """Fits mixtures of Gaussians to whitened rows, and keeps the one that helps others most.

        By itself a mixture can lose all for a row far out, which others in the stack can bear. Says
        what is left of the budget, too.
        """
        front = self.front("whiten", rows, self.ridge)
        budget.spent += self.whitening_work(len(rows))
        part = self.through(front, rows[: _MIXED // self.features])
        judges = self.through(front, self.fold(0)[1])
        known = [evaluate(one.density, others.split) for one in beside]
        value, found = -math.inf, list[_Member]()
        for slopes in (False, True) if self.given else (False,):
            worse, spent = 0, budget.spent
            samples = [Sample(one.split.x, one.weight, one.split.context) for one in (part, judges)]
            for grown in grow(*samples, slopes=slopes):
                density = assemble(self.layout, front, (), grown.mixture).double()
                log_probs = torch.stack([*known, evaluate(density, others.split)], dim=1)
                weights = stacking_weights(log_probs, others.weight)
                now = others.mean((log_probs + weights.log()).logsumexp(dim=1))
                worse = 0 if now > value else worse + 1
                if now > value:
                    plan: dict[str, Any] = {"components": len(grown.mixture.logits)}
                    plan |= {"slopes": True} if slopes else {}
                    value, found = now, [_Member(_plan(front) | plan, density)]
                budget.spent = spent + grown.work / _MULTIPLICATIONS
                if worse == 2 or 2 * grown.work / _MULTIPLICATIONS > budget.left:
                    break
        return found, budget.total - budget.spent

    def settle(self, name: str, layers: str, fold: int, work: float) -> list[_Training]:
        """Settles how a flow is trained, and takes that off the budget; none if it is too much."""
        rows, validation = self.fold(fold)
        # As wide as MADE needs: a unit for each feature that others depend on.
        hidden = max(128 if self.features <= 64 else 256, self.features - 1 + bool(self.given))
        weights = _weights(self.features, self.given, layers, hidden)
        batch_size = batch_size_of(len(rows))
        epochs = min(_EPOCHS, epochs_within(work, len(rows), weights, batch_size))
        if not epochs:  # once, as many rows as there is work for
            rows = rows[: int(len(rows) * work / training_work(len(rows), weights, batch_size))]
        if weights > _WEIGHTS or len(rows) < _FEWEST // 2:
            return []
        config = TrainConfig(
            epochs=max(epochs, 1),
            batch_size=batch_size,
            lr=2e-3 if name == "margins" else 1e-3,
            schedule="cosine",
            patience=_PATIENCE,
            seed=self.seed + fold,
        )
        epoch = training_work(len(rows), weights, batch_size)
        self.budget.spent += config.epochs * epoch
        if _FRONTS[name][1]:
            self.budget.spent += self.whitening_work(len(rows))
        return [_Training(name, layers, hidden, rows, validation, config, epoch)]

    def train(self, settled: _Training) -> tuple[list[_Member], float]:
        """Trains a flow on what its front leaves; says what work it did without."""
        rows, config = settled.rows, settled.config
        front = self.front(settled.name, rows, self.ridge)
        layers, hidden, seed = settled.layers, settled.hidden, config.seed
        flow = build_layers(self.features, self.given, layers, hidden, seed)
        present = present_columns(self.layout)[1]
        density = PartialFlow(flow, standard_normal(self.features), present)
        parts = self.through(front, rows), self.through(front, settled.validation)
        history = train(density, *parts, config)
        plan = _plan(front) | {"layers": layers, "hidden": hidden, "seed": seed}
        member = _Member(plan, assemble(self.layout, front, flow).double())
        return [member], (config.epochs - len(history.records)) * settled.epoch

    def make(self, calls: Sequence[Callable[[], tuple[list[_Member], float]]]) -> list[_Member]:
        """Makes members, some at once; the work that they did without is in the budget again."""
        made = together(calls) if self.is_whole else [call() for call in calls]
        for _, spare in made:
            self.budget.spent -= spare
        return [member for members, _ in made for member in members]


def _weights(features: int, given: int, layers: str, hidden: int) -> int:
    """About how many weights a flow has: half of a large masked matrix is left out."""

    def kept(rows: int, columns: int) -> int:
        return rows * columns if rows * columns < SMALLEST_CUT else rows * columns * 5 // 9

    def layer(outputs: int) -> int:
        ends = kept(hidden, features) + kept(outputs * features, hidden)
        return ends + 4 * kept(hidden, hidden) + hidden * given

    return sum(layer({"a": 2, "s": 23}[letter]) for letter in layers)


def _plan(front: list[LazyTransform]) -> dict[str, Any]:
    """How to build a front again."""
    knots = next((step.x.shape[1] for step in front if isinstance(step, NormalScores)), 0)
    return {"front": {"knots": knots, "whiten": any(isinstance(s, Whiten) for s in front)}}
