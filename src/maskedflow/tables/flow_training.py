"""Flows of a search: each is trained for as long as it is worth it, in turns."""

from __future__ import annotations

import copy
import math
import threading

from torch import Tensor

from maskedflow.flows.flow import standard_normal
from maskedflow.nn.masked import SMALLEST_CUT
from maskedflow.training import Ranks, TrainConfig, fit

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
_EPOCHS, _STEPS, _PATIENCE = 30, 3000, 12
"""The passes and the steps of a turn, whichever is more, and the passes without a gain that end it.
"""
_GAIN = 0.01
"""Nats a row that a turn has to bring, or there is no further one."""


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
    ) -> None:
        self.task, self.name, self.letters = task, front, letters
        self.fold, self.ridge, self.stopped = fold, ridge, stopped
        self.rows, self.validation = rows, validation
        features, given = task.features, task.given
        # As wide as MADE needs: a unit for each feature that others depend on.
        width = 256 if features > 64 else 128 if len(rows) >= _MANY else 64
        self.hidden = max(width, features - 1 + bool(given))
        self.batch_size = batch_size_of(len(rows))
        self.weights = _weights(features, given, letters, self.hidden)
        self.epoch = COMPILED.training_work(len(rows), self.weights, self.batch_size)
        self.score = -math.inf
        self.is_done = self.weights > _WEIGHTS
        self.member: Member | None = None
        self._config: TrainConfig | None = None

    @property
    def label(self) -> str:
        """What it is, in a few words."""
        return f"flow {self.name} {self.letters}"

    def settle(self, work: float) -> float:
        """Plans a turn of so much work at most; returns what it takes, 0 if that is not enough."""
        self._config = None
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
        return self._config.epochs * self.epoch

    def turn(self) -> float:
        """Takes the turn that was planned; returns the work that it did without."""
        config, task = self._config, self.task
        if config is None:
            return 0.0
        if self.member is None:
            self._front = task.front(self.name, self.rows, self.ridge)
            self._layers = build_layers(
                task.features, task.given, self.letters, self.hidden, config.seed
            )
            self._flow = PartialFlow(self._layers, standard_normal(task.features), task.present)
            self._parts = (
                task.through(self._front, self.rows).in_float32(),
                task.through(self._front, self.validation).in_float32(),
            )
        before = copy.deepcopy(self._flow.state_dict())
        self._flow.float()
        # Searches have threads, not processes, to spread their members over.
        alone = Ranks(alone=True)
        history = fit(self._flow, *self._parts, config, stopped=self.stopped.is_set, ranks=alone)
        gained = -history.best_validation_nll - self.score if self.member else math.inf
        if self.member is not None:
            self.is_done = gained < _GAIN
        self.is_done |= history.stopped_because == "patience"
        if gained < 0:
            self._flow.load_state_dict(before)
        else:
            self.score = -history.best_validation_nll
        seed = self.task.seed + self.fold
        plan = front_plan(self._front) | {
            "layers": self.letters,
            "hidden": self.hidden,
            "seed": seed,
        }
        # The layers are shared: a further turn makes this member another one.
        whole = assemble(task.layout, self._front, self._layers)
        self.member = Member(plan, whole.double())
        return (config.epochs - len(history.records)) * self.epoch


def _weights(features: int, given: int, layers: str, hidden: int) -> int:
    """About how many weights a flow has: half of a large masked matrix is left out."""

    def kept(rows: int, columns: int) -> int:
        return rows * columns if rows * columns < SMALLEST_CUT else rows * columns * 5 // 9

    def layer(outputs: int) -> int:
        ends = kept(hidden, features) + kept(outputs * features, hidden)
        return ends + 4 * kept(hidden, hidden) + hidden * given

    return sum(layer({"a": 2, "s": 23}[letter]) for letter in layers)
