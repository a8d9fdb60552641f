"""The search for a density of numbers: members of every kind are fitted, judged and stacked."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maskedflow.flows import LazyDistribution
from maskedflow.flows.stack import stacking_weights

from .flow_training import FEWEST, FlowTraining
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
_FIRST, _MIXING, _BOOSTING, _LEAVES = 0.25, 0.2, 0.25, 0.15
"""The shares of the work for first turns of flows, mixtures, boosted trees, kernels and forests."""
_CLOSE, _LAST = 0.3, 0.85
"""Of the weight of the best flow, what another needs to be trained on beside it; and the share of
the work that is left for that."""
_COPIES, _FLOWS = 8, 8
"""Most flows of other orders and other judges, and most in the end: each takes time to score."""
_LEAST_WEIGHT, _LEAST_WORK = 0.01, 0.1
"""A kind of less weight is left out; with a smaller share of the work nothing more is begun."""


Tell = Callable[[float, str], None]
"""What is told of a search: the share of the work that is done, and a line."""


@dataclass
class _Entry:
    """A kind that was tried: its members, and what they say of rows that they have not seen."""

    label: str
    members: list[Member]
    log_probs: list[Tensor]
    kind: Kind | None = None
    training: FlowTraining | None = None
    weight: float = field(default=0.0)


class Contest:
    """The search for the stack of densities under which rows that none has seen are likeliest.

    Args:
        task: The rows.
        flow: What is tried, one of `FLOWS`.
        budget: The work that it may do.
        tell: Called after each member with the share of the work that is done, and a line.
    """

    def __init__(self, task: Task, flow: str, budget: Budget, tell: Tell) -> None:
        self.task, self.flow, self.budget, self.tell = task, flow, budget, tell
        self.stopped = threading.Event()
        n = len(task.all)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(task.seed))
        folds = 5 if n < _CROSSED else 10
        self.folds = order.tensor_split(folds) if n >= folds else (order,)
        self.judged = min(len(self.folds), math.ceil(_JUDGED * len(self.folds) / n))
        self.is_crossed = n < _CROSSED and self.judged > 1
        self.entries: list[_Entry] = []

    def run(self) -> tuple[list[LazyDistribution], Tensor, list[dict[str, Any]]]:
        """Tries each kind, gives more work to the best, and weighs them."""
        try:
            self.simple()
            self.flows()
            self.weigh(range(1))
            if self.is_crossed:
                self.cross()
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

    def simple(self) -> None:
        """Fits the kinds that are no flows."""
        rows, others = self.fold(0)
        self.ridge = 0.0
        self.can_whiten = self.task.can_whiten(self.budget.left)
        kinds: list[tuple[Kind, float]] = []
        if self.flow == "auto" or not self.can_whiten:
            kinds.append((Margins(self.task), math.inf))
        if self.can_whiten:
            kinds.append((Gaussian(self.task, "whiten"), math.inf))
        if self.can_whiten and self.flow == "auto":
            kinds.append((Gaussian(self.task, "scores"), math.inf))
            raw = "scaled" if self.task.patterns else "whiten"
            kinds += [(Mixture(self.task, front), 0.5 * _MIXING) for front in ("margins", raw)]
        if self.flow == "auto" and self.can_whiten:
            kinds += [(Products(self.task, name), _LEAVES) for name in ("margins", "forest")]
            kinds.append((Products(self.task, "scores"), _LEAVES))
            kinds.append((Chain(self.task), _BOOSTING))
        # What is fitted once for each judge, and once more at the end, has that much less.
        times = self.judged + 1 if self.is_crossed else 1
        for kind, share in kinds:
            if isinstance(kind, Mixture):
                kind.ridge = self.ridge
            work = min(share * self.budget.total / times, self.budget.left / times)
            beside = [entry.log_probs[0] for entry in self.entries]
            member = kind.fit(rows, others, beside, work)
            self.budget.spent += kind.spent
            if member is None:
                continue
            if isinstance(kind, Gaussian) and kind.front == "whiten":
                self.ridge = kind.ridge
            log_probs = self.task.log_probs(member.density, others)
            self.add(_Entry(kind.label, [member], [log_probs], kind))
        if self.is_crossed:
            again = sum(entry.kind.again_work for entry in self.entries if entry.kind)
            self.budget.spent += self.judged * again

    def add(self, entry: _Entry) -> None:
        """Takes a kind in, and tells of it."""
        self.entries.append(entry)
        score = self.task.all[self.fold(0)[1]].mean(entry.log_probs[0])
        self.tell(self.budget.share, f"{entry.label}: {score:.3f} nats")

    def flows(self) -> None:
        """Trains a flow of each kind a little, and those that are worth it for longer."""
        kinds = [k for k in FLOWS[self.flow] if self.can_whiten or not FRONTS[k[0]][1]]
        if self.task.rows < FEWEST or not kinds:
            return
        rows, others = self.fold(0)
        trainings = [
            FlowTraining(self.task, *kind, rows, others, 0, self.ridge, self.stopped)
            for kind in kinds
        ]
        times = self.judged if self.is_crossed else 1
        work = _FIRST if len(kinds) > 1 and not self.is_crossed else 0.9
        work *= self.budget.left / times
        self.take_turns({one: work / len(kinds) for one in trainings})
        trainings = [one for one in trainings if one.member is not None]
        for training in trainings:
            assert training.member is not None
            log_probs = self.task.log_probs(training.member.density, others)
            self.add(_Entry(training.label, [training.member], [log_probs], training=training))
        if self.is_crossed:
            return
        copies = 0
        while self.budget.left > _LEAST_WORK * self.budget.total:
            self.weigh(range(1))
            alive = [entry for entry in self.entries if entry.training and entry.weight > 0]
            if not alive:
                return
            alive.sort(key=lambda entry: -entry.weight / len(entry.members))
            growing = [entry for entry in alive if entry.training and not entry.training.is_done]
            if growing:
                close = _CLOSE * growing[0].weight
                best = [entry for entry in growing[:2] if entry.weight >= close]
                share = _LAST * self.budget.left / len(best)
                taken = self.take_turns({one.training: share for one in best if one.training})
                for entry in best:
                    trained = entry.training
                    assert trained is not None
                    assert trained.member is not None
                    entry.members = [trained.member]
                    entry.log_probs = [self.task.log_probs(trained.member.density, others)]
                    self.tell(self.budget.share, f"{entry.label}: {trained.score:.3f} nats")
                if taken:
                    continue
            if copies >= _COPIES:
                return
            wave = []
            for entry in alive[:2]:
                copies += 1
                assert entry.training is not None
                wave.append((entry, self.copy(entry.training, copies)))
            share = 0.5 * self.budget.left / len(wave)
            if not self.take_turns({copy: share for _, copy in wave}):
                return
            for entry, copy in wave:
                if copy.member is not None:
                    entry.members.append(copy.member)

    def copy(self, training: FlowTraining, fold: int) -> FlowTraining:
        """The same kind of flow, with another order, for other judges."""
        rows, others = self.fold(fold)
        return FlowTraining(
            self.task, training.name, training.letters, rows, others, fold, self.ridge, self.stopped
        )

    def take_turns(self, shares: dict[FlowTraining, float]) -> float:
        """Gives flows so much work each, some at once; returns what was done."""
        before = self.budget.spent
        for training, share in shares.items():
            self.budget.spent += training.settle(min(share, self.budget.left))
        turns = [training.turn for training in shares]
        self.budget.spent -= sum(together(turns, self.stopped.set))
        return self.budget.spent - before

    def weigh(self, folds: range) -> None:
        """Finds the weights under which the rows that judged are likeliest."""
        log_probs = torch.stack(
            [torch.cat([entry.log_probs[k] for k in folds]) for entry in self.entries], dim=1
        )
        weight = torch.cat([self.task.all.weight[self.fold(k)[1]] for k in folds])
        weights = stacking_weights(log_probs, weight).tolist()
        for entry, weight_of in zip(self.entries, weights, strict=True):
            entry.weight = weight_of if weight_of >= _LEAST_WEIGHT else 0.0

    def cross(self) -> None:
        """Has the other folds judge, too, and fits to all rows then."""
        flows = [entry for entry in self.entries if entry.training is not None]
        flows.sort(key=lambda entry: -float(entry.log_probs[0].mean()))
        kept = {id(entry) for entry in flows[:2]}
        self.entries = [
            e for e in self.entries if e.kind is not None or e.weight > 0 or id(e) in kept
        ]
        flows = [entry for entry in self.entries if entry.training is not None]
        left = self.budget.left
        pending = [
            (entry, self.copy(entry.training, k))
            for entry in flows
            if entry.training
            for k in range(1, self.judged)
        ]
        self.take_turns({copy: left / max(len(pending), 1) for _, copy in pending})
        for entry, copy in pending:
            if copy.member is None:
                self.entries.remove(entry) if entry in self.entries else None
                continue
            entry.members.append(copy.member)
            entry.log_probs.append(self.task.log_probs(copy.member.density, copy.validation))
        kinds = [(entry, entry.kind) for entry in self.entries if entry.kind is not None]

        def judge(kind: Kind, k: int) -> Tensor:
            rows, others = self.fold(k)
            return self.task.log_probs(kind.again(rows).density, others)

        calls: list[Callable[[], Any]] = [
            partial(judge, kind, k) for _, kind in kinds for k in range(1, self.judged)
        ]
        found = iter(together(calls))
        for entry, _ in kinds:
            entry.log_probs += [next(found) for _ in range(1, self.judged)]
        self.weigh(range(self.judged))
        every = torch.cat(self.folds)
        final = [(entry, kind) for entry, kind in kinds if entry.weight > 0]
        made = together([partial(kind.again, every) for _, kind in final])
        for (entry, _), member in zip(final, made, strict=True):
            entry.members = [member]

    def found(self) -> tuple[list[LazyDistribution], Tensor, list[dict[str, Any]]]:
        """The members that have a weight, these weights, and how to build them again."""
        found = [
            (member, entry.weight / len(kept)) for entry, kept in self.kept() for member in kept
        ]
        weights = torch.tensor([weight for _, weight in found], dtype=torch.float64)
        return [one.density for one, _ in found], weights, [one.plan for one, _ in found]

    def kept(self) -> list[tuple[_Entry, list[Member]]]:
        """The members of each kind that has a weight: of flows, most of those that weigh most."""
        entries = [entry for entry in self.entries if entry.weight > 0]
        flows = [entry for entry in entries if entry.training]
        counts = {id(entry): 1 for entry in flows}
        for _ in range(len(flows), _FLOWS):
            growing = [e for e in flows if counts[id(e)] < len(e.members)]
            if growing:
                counts[id(max(growing, key=lambda e: e.weight / counts[id(e)]))] += 1
        return [(entry, entry.members[: counts.get(id(entry), 1)]) for entry in entries]
