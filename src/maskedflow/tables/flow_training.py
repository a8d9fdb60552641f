"""Flows of a search: each is trained for as long as it is worth it, in turns."""

from __future__ import annotations

import math
import threading
from functools import cached_property, partial
from typing import Any

from torch import Tensor
from typing_extensions import TypedDict

from maskedflow.data import Split
from maskedflow.files import blame, check
from maskedflow.flows.flow import standard_normal
from maskedflow.nn.masked import SMALLEST_CUT
from maskedflow.training import Ranks, TrainConfig, fit
from maskedflow.transforms import LazyTransform

from .checkpoints import Checkpoints, Finished, Step
from .member import Member, front_plan
from .missing import PartialFlow
from .plan import assemble, build_layers
from .task import Task
from .work import COMPILED, batch_size_of

FEWEST = 60
"""Rows below which no flow is tried."""
_MANY = 5_000
"""Rows from which on networks are wider: fewer rows tell no more than a narrow one can hold."""
_WEIGHTS = 10_000_000
"""Most weights of a flow: tables so wide that one has more have too few rows for it."""
_BUILDING, _SMALL = 4e-7, 1_000_000
"""The work that a turn takes for each weight beside its steps: building, copies, programs; and the
weights for which that is too little to count."""
_EPOCHS, _STEPS, _PATIENCE = 30, 3000, 12
"""The passes and the steps of a turn, whichever is more, and the passes without a gain that end it.
"""
_GAIN = 0.01
"""Nats a row that a turn has to bring, or there is no further one."""


class _Turn(TypedDict):
    """What a turn has brought: the score, whether it was the last one, and work that is left."""

    score: float
    done: bool
    unused: float


class FlowTraining:
    """A flow behind a front, trained on some rows until others like it no better.

    Args:
        task: What it is fitted to.
        front: What comes before it, see :data:`FRONTS`.
        letters: Its layers, affine ones and splines.
        rows: The rows to train on.
        validation: The rows that judge.
        fold: A number of its own, which tells order and first weights.
        ridge: The ridge of whitening.
        stopped: Ends a turn that is being taken.
        checkpoints: The turns that were taken before the search was killed.
    """

    def __init__(
        self,
        task: Task,
        front: str,
        letters: str,
        rows: Tensor,
        validation: Tensor,
        fold: int,
        ridge: float,
        stopped: threading.Event,
        checkpoints: Checkpoints,
    ) -> None:
        self.task, self.name, self.letters = task, front, letters
        self.fold, self.ridge = fold, ridge
        self.stopped, self.checkpoints = stopped, checkpoints
        self.rows, self.validation = rows, validation
        features, given = task.features, task.given
        # As wide as MADE needs: a unit for each feature that others depend on.
        width = 256 if features > 64 else 128 if len(rows) >= _MANY else 64
        self.hidden = max(width, features - 1 + bool(given))
        self.batch_size = batch_size_of(len(rows))
        self.weights = _weights(features, given, letters, self.hidden)
        self.epoch = COMPILED.training_work(len(rows), self.weights, self.batch_size)
        self.building = _BUILDING * max(self.weights - _SMALL, 0)
        self.score = -math.inf
        self.is_done = self.weights > _WEIGHTS
        self.member: Member | None = None
        self.turns = 0
        self._last: Finished | None = None
        self._config: TrainConfig | None = None

    @property
    def label(self) -> str:
        """What it is, in a few words."""
        return f"flow {self.name} {self.letters}"

    def settle(self, work: float) -> float:
        """Plans a turn of so much work at most; returns what it takes, 0 if that is not enough."""
        self._config = None
        work = max(work - self.building, 0.0)
        epochs = COMPILED.epochs_within(work, len(self.rows), self.weights, self.batch_size)
        if self.member is None and not epochs:  # once, as many rows as there is work for
            self.rows = self.rows[: int(len(self.rows) * work / self.epoch)]
            self.epoch = COMPILED.training_work(len(self.rows), self.weights, self.batch_size)
            epochs = int(len(self.rows) >= FEWEST)
        if self.is_done or not epochs:
            return 0.0
        steps = math.ceil(len(self.rows) / self.batch_size)
        most = max(_EPOCHS, math.ceil(_STEPS / steps))
        if self.member is not None:
            most *= 4
        self._config = TrainConfig(
            epochs=min(epochs, most),
            batch_size=self.batch_size,
            lr=2e-3 if self.name == "margins" else 1e-3,
            schedule="cosine",
            patience=max(_PATIENCE, min(epochs, most) // 4),
            seed=self.task.seed + self.fold,
        )
        return self.building + self._config.epochs * self.epoch

    def turn(self) -> tuple[float, FlowTraining]:
        """Takes the turn that was planned; returns the work that it did without, and itself.

        What is returned is another one where turns are taken in other processes.
        """
        config, task = self._config, self.task
        if config is None:
            return 0.0, self
        self.turns += 1
        name = f"{self.label} {self.fold} turn {self.turns}"
        self._last = self.checkpoints.once(name, partial(self._train, config))
        self.member = Member.of(self._last, task.layout, task.given)
        with blame(self._last.path, "not a step of this search"):
            facts = check(_Turn, {name: self._last.plain[name] for name in _Turn.__annotations__})
        self.score, self.is_done = facts["score"], facts["done"]
        return facts["unused"], self

    def become(self, after: FlowTraining) -> None:
        """Is what a turn has made of it, perhaps in another process."""
        self.__dict__ |= {**vars(after), "task": self.task, "stopped": self.stopped}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "stopped": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "stopped": threading.Event()}

    @cached_property
    def _front(self) -> list[LazyTransform]:
        return self.task.front(self.name, self.rows, self.ridge)

    @cached_property
    def _parts(self) -> tuple[Split, Split]:
        rows, validation = (
            self.task.through(self._front, part).in_float32()
            for part in (self.rows, self.validation)
        )
        return rows, validation

    def _train(self, config: TrainConfig) -> Step:
        """Trains the flow on, from where its last turn left it."""
        task = self.task
        layers = build_layers(task.features, task.given, self.letters, self.hidden, config.seed)
        whole = assemble(task.layout, self._front, layers)
        if self._last is not None:
            whole.double().load_state_dict(dict(self._last.tensors))
        flow = PartialFlow(layers, standard_normal(task.features), task.present).float()
        alone = Ranks(alone=True)  # members are spread over processes, not rows
        history = fit(flow, *self._parts, config, stopped=self.stopped.is_set, ranks=alone)
        if history.stopped_because == "interrupted":
            raise KeyboardInterrupt  # nothing is kept of a part of a turn
        score = -history.best_validation_nll
        gained = math.inf if self._last is None else score - self.score
        done = history.stopped_because == "patience" or gained < _GAIN
        unused = (config.epochs - len(history.records)) * self.epoch
        facts: _Turn = {"score": max(score, self.score), "done": done, "unused": unused}
        plan: dict[str, Any] = front_plan(self._front)
        plan |= {"layers": self.letters, "hidden": self.hidden, "seed": config.seed}
        if gained < 0:
            assert self._last is not None
            return {**self._last.plain, **facts}, self._last.tensors
        return {"plan": plan, **facts}, whole.double().state_dict()


def _weights(features: int, given: int, layers: str, hidden: int) -> int:
    """About how many weights a flow has: half of a large masked matrix is left out."""

    def kept(rows: int, columns: int) -> int:
        return rows * columns if rows * columns < SMALLEST_CUT else rows * columns * 5 // 9

    def layer(outputs: int) -> int:
        ends = kept(hidden, features) + kept(outputs * features, hidden)
        return ends + 4 * kept(hidden, hidden) + hidden * given

    return sum(layer({"a": 2, "s": 23}[letter]) for letter in layers)
