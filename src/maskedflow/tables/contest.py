"""The search for a density of numbers: members of every kind are fitted, judged and stacked."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maskedflow.flows import LazyDistribution
from maskedflow.flows.stack import stacking_weights

from .checkpoints import Checkpoints
from .entry import Entry, Simple, Trained
from .flow_training import FEWEST, FlowTraining
from .forest import fit_forest
from .kernel_density import CENTRES, fit_kernels
from .kinds import Chain, Gaussian, Kind, Margins, Mixture, Products
from .member import Member
from .task import FRONTS, Task
from .together import together
from .work import Budget

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
"""What `flow` may be, and the kinds of flows that each tries: a front, and layers."""

_CROSSED, _JUDGED = 5_000, 1_500
"""Rows below which a fifth, not a tenth, judges, and so many fifths that there are enough rows."""
_VALIDATION = 5_000
"""Most rows that judge at a time."""
_CELLS = 10_000_000
"""Most cells that a member is fitted to: more could not be seen within minutes."""
_FIRST, _MIXING, _BOOSTING, _LEAVES = 0.25, 0.2, 0.25, 0.2
"""The shares of the work for first turns of flows, mixtures, boosted trees, kernels and forests."""
_KERNEL, _TREES = (2.5e-5, 2e-6), (3e-4, 4e-6)
"""The work of a row, and of each of its columns, of a kernel density, and of a forest."""
_CLOSE, _LAST = 0.3, 0.85
"""Of the weight of the best flow, what another needs to be trained on beside it; and the share of
the work that is left for that."""
_COPIES, _FLOWS = 8, 8
"""Most flows of other orders and other judges, and most in the end: each takes time to score."""
_LEAST_WEIGHT, _LEAST_WORK = 0.01, 0.1
"""A kind of less weight is left out; with a smaller share of the work nothing more is begun."""


Tell = Callable[[float, str], None]
"""What is told of a search: the share of the work that is done, and a line."""


class Contest:
    """The search for the stack of densities under which rows that none has seen are likeliest.

    Args:
        task: The rows.
        flow: What is tried, one of `FLOWS`.
        budget: The work that it may do.
        tell: Called after each member with the share of the work that is done, and a line.
        checkpoints: The steps that were taken before the search was killed.
    """

    def __init__(
        self, task: Task, flow: str, budget: Budget, tell: Tell, checkpoints: Checkpoints
    ) -> None:
        self.task, self.flow, self.budget, self.tell = task, flow, budget, tell
        self.checkpoints = checkpoints
        self.stopped = threading.Event()
        n = len(task.all)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(task.seed))
        folds = 5 if n < _CROSSED else 10
        self.folds = order.tensor_split(folds) if n >= folds else (order,)
        self.judged = min(len(self.folds), math.ceil(_JUDGED * len(self.folds) / n))
        self.is_crossed = n < _CROSSED and self.judged > 1
        self.simple: list[Simple] = []
        self.flows: list[Trained] = []

    @property
    def entries(self) -> list[Entry]:
        """All that was tried."""
        return [*self.simple, *self.flows]

    def run(self) -> tuple[list[LazyDistribution], Tensor, list[dict[str, Any]]]:
        """Tries each kind, gives more work to the best, and weighs them."""
        try:
            self.fit_simple()
            self.train_flows()
            if self.is_crossed:
                self.cross()
            else:
                self.train_on()
        except KeyboardInterrupt:
            if not self.entries:
                raise
            self.stopped.set()
            self.weigh(range(1))
        return self.found()

    def fold(self, number: int) -> tuple[Tensor, Tensor]:
        """Rows to fit, and other rows to judge, as far as there are any."""
        validation = self.folds[number % len(self.folds)]
        if len(self.folds) == 1:
            return validation, validation
        rest = [self.folds[(number + k) % len(self.folds)] for k in range(1, len(self.folds))]
        return torch.cat(rest)[: _CELLS // self.task.features], validation[:_VALIDATION]

    def fit_simple(self) -> None:
        """Fits the kinds that are no flows."""
        task, is_auto = self.task, self.flow == "auto"
        self.can_whiten = task.can_whiten(self.budget.left)
        self.ridge = 0.0
        if is_auto or not self.can_whiten:
            self.fit(Margins(task), math.inf)
        if self.can_whiten:
            gaussian = Gaussian(task, "whiten")
            self.fit(gaussian, math.inf)
            self.ridge = gaussian.ridge
        if self.can_whiten and is_auto:
            self.fit(Gaussian(task, "scores"), math.inf)
            for front in ("margins", "scaled" if task.patterns else "whiten"):
                self.fit(Mixture(task, front, self.ridge), 0.5 * _MIXING)
            for label, front in (("kernels", "margins"), ("whitened kernels", "scores")):
                self.fit(Products(task, label, front, fit_kernels, CENTRES, _KERNEL), _LEAVES)
            forest = Products(task, "forest", "margins", fit_forest, len(task.all), _TREES)
            self.fit(forest, _LEAVES)
            self.fit(Chain(task), _BOOSTING)
        if self.is_crossed:
            self.budget.spent += self.judged * sum(one.kind.again_work for one in self.simple)

    def fit(self, kind: Kind, share: float) -> None:
        """Fits a kind, with a share of the work at most."""
        rows, others = self.fold(0)
        work = min(share * self.budget.total, self.budget.left)
        if self.is_crossed:  # it is fitted once for each judge, and once more at the end
            if isinstance(kind, Products):
                work -= self.judged * kind.again_work
            else:
                work /= self.judged + 1
        beside = [entry.log_probs[0] for entry in self.entries]
        member = kind.fit_once(self.checkpoints, rows, others, beside, work)
        self.budget.spent += kind.spent
        if member is not None:
            log_probs = self.task.log_probs(member.density, others)
            self.simple.append(Simple(kind.label, [member], [log_probs], kind))
            self.tell_of(self.simple[-1])

    def tell_of(self, entry: Entry) -> None:
        """Tells of an entry."""
        self.tell(self.budget.share, f"{entry.label}: {self.score(entry):.3f} nats")

    def score(self, entry: Entry) -> float:
        """How likely an entry finds the rows of the first judge."""
        return self.task.all[self.fold(0)[1]].mean(entry.log_probs[0])

    def train_flows(self) -> None:
        """Trains a flow of each kind a little."""
        kinds = [k for k in FLOWS[self.flow] if self.can_whiten or not FRONTS[k[0]][1]]
        if self.task.rows < FEWEST or not kinds:
            return
        trainings = [one for kind in kinds if not (one := self.training(*kind, 0)).is_done]
        share = _FIRST if len(kinds) > 1 and not self.is_crossed else 0.9
        work = share * self.budget.left / (self.judged if self.is_crossed else 1)
        # Of flows so wide that building them takes all the work, the smallest are left.
        while trainings and max(one.building for one in trainings) * len(trainings) > work:
            trainings.remove(max(trainings, key=lambda one: one.building))
        self.take_turns({one: work / len(trainings) for one in trainings})
        for training in trainings:
            if training.member is not None:
                self.flows.append(Trained(training.label, [], [], training))
                self.renew(self.flows[-1])

    def renew(self, entry: Trained) -> None:
        """Takes a flow as it is after a turn."""
        member = entry.training.member
        if member is not None:
            entry.members = [member]
            entry.log_probs = [self.task.log_probs(member.density, entry.training.validation)]
            self.tell_of(entry)

    def train_on(self) -> None:
        """Trains the best flows on while they improve, then copies of them."""
        copies = 0
        while self.budget.left > _LEAST_WORK * self.budget.total:
            self.weigh(range(1))
            alive = [entry for entry in self.flows if entry.weight > 0]
            alive.sort(key=lambda entry: -entry.weight / len(entry.members))
            # What has no weight beside trees after a short turn may have one after a long turn.
            growing = alive or sorted(self.flows, key=self.score, reverse=True)[:1]
            growing = [entry for entry in growing if not entry.training.is_done][:2]
            best = [entry for entry in growing if entry.weight >= _CLOSE * growing[0].weight]
            share = _LAST * self.budget.left / max(len(best), 1)
            if self.take_turns({entry.training: share for entry in best}):
                for entry in best:
                    self.renew(entry)
                continue
            if not alive or copies >= _COPIES:
                break
            wave = [(entry, self.copy(entry, copies + k + 1)) for k, entry in enumerate(alive[:2])]
            copies += len(wave)
            if not self.take_turns({c: 0.5 * self.budget.left / len(wave) for _, c in wave}):
                break
            for entry, copy in wave:
                if copy.member is not None:
                    entry.members.append(copy.member)
        self.weigh(range(1))

    def training(self, front: str, letters: str, fold: int) -> FlowTraining:
        """The training of a flow with an order of its own, without the rows of a fold."""
        rows, others = self.fold(fold)
        arguments = front, letters, rows, others, fold, self.ridge
        return FlowTraining(self.task, *arguments, self.stopped, self.checkpoints)

    def copy(self, entry: Trained, fold: int) -> FlowTraining:
        """The training of the same kind of flow for other judges."""
        return self.training(entry.training.name, entry.training.letters, fold)

    def take_turns(self, shares: dict[FlowTraining, float]) -> float:
        """Gives flows so much work each, some at once; returns what was done."""
        before = self.budget.spent
        for training, share in shares.items():
            self.budget.spent += training.settle(min(share, self.budget.left))
        turns = together([training.turn for training in shares], self.stopped.set)
        for training, (_, after) in zip(shares, turns, strict=True):
            training.become(after)
        self.budget.spent -= sum(left for left, _ in turns)
        return self.budget.spent - before

    def weigh(self, folds: range) -> None:
        """Finds the weights under which the rows that judged are likeliest."""
        log_probs = torch.stack(
            [torch.cat([entry.log_probs[k] for k in folds]) for entry in self.entries], dim=1
        )
        weight = torch.cat([self.task.all.mass[self.fold(k)[1]] for k in folds])
        weights = stacking_weights(log_probs, weight).tolist()
        for entry, weight_of in zip(self.entries, weights, strict=True):
            entry.weight = weight_of if weight_of >= _LEAST_WEIGHT else 0.0

    def cross(self) -> None:
        """Has the other folds judge, too, and fits to all rows then."""
        self.weigh(range(1))
        best = sorted(self.flows, key=self.score, reverse=True)[:2]
        flows = [entry for entry in self.flows if entry.weight > 0 or entry in best]
        folds = range(1, self.judged)
        copies = [[self.copy(entry, k) for k in folds] for entry in flows]
        every = [copy for some in copies for copy in some]
        self.take_turns({copy: self.budget.left / len(every) for copy in every})

        judged = iter(
            together(
                [
                    partial(entry.kind.judged, self.checkpoints, k, *self.fold(k))
                    for entry in self.simple
                    for k in folds
                ]
            )
        )
        self.flows = []
        for entry, some in zip(flows, copies, strict=True):
            made = [(copy.member, copy.validation) for copy in some if copy.member is not None]
            if len(made) == len(folds):
                entry.members += [member for member, _ in made]
                entry.log_probs += [self.task.log_probs(m.density, rows) for m, rows in made]
                self.flows.append(entry)
        for simple in self.simple:
            simple.log_probs += [next(judged) for _ in folds]
        self.weigh(range(self.judged))
        kept, rows = [entry for entry in self.simple if entry.weight > 0], torch.cat(self.folds)
        made_again = together(
            [partial(entry.kind.again_once, self.checkpoints, rows) for entry in kept]
        )
        for simple, member in zip(kept, made_again, strict=True):
            simple.members = [member]

    def found(self) -> tuple[list[LazyDistribution], Tensor, list[dict[str, Any]]]:
        """The members that have a weight, these weights, and how to build them again."""
        found = [
            (member, entry.weight / len(kept)) for entry, kept in self.kept() for member in kept
        ]
        weights = torch.tensor([weight for _, weight in found], dtype=torch.float64)
        return [one.density for one, _ in found], weights, [one.plan for one, _ in found]

    def kept(self) -> list[tuple[Entry, list[Member]]]:
        """The members of each kind that has a weight: of flows, most of those that weigh most."""
        flows = [entry for entry in self.flows if entry.weight > 0]
        counts = [1 for _ in flows]
        for _ in range(len(flows), _FLOWS):
            growing = [k for k, entry in enumerate(flows) if counts[k] < len(entry.members)]
            if growing:
                counts[max(growing, key=lambda k: flows[k].weight / counts[k])] += 1
        return [
            *((entry, entry.members) for entry in self.simple if entry.weight > 0),
            *((entry, entry.members[:n]) for entry, n in zip(flows, counts, strict=True)),
        ]
