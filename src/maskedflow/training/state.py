"""Where a training is, and how many steps it takes: by its settings or by its pace."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from maskedflow.files import CLOSED, Count, Size

from .config import PACED, TrainConfig
from .history import EpochRecord

UNTIMED = 5
"""Steps that are not timed: the first ones compile."""
SPARE = 0.05
"""The share of the time that is left for steps which take longer."""


@dataclass
class TrainingState:
    """Where a training is, but for its weights and optimizer moments.

    Generators need no place here: every draw follows from (seed, epoch, batch).
    """

    __pydantic_config__: ClassVar = CLOSED

    epoch: Size = 1
    batch: Count = 0  # mini-batches of the epoch that are done
    step: Count = 0  # mini-batches done since the start
    loss_sum: float = 0.0  # of the epoch so far, over rows
    rows: Count = 0  # in that sum
    past_seconds: float = 0.0  # wall time of the epochs done, all sessions together
    epoch_seconds: float = 0.0  # of the epoch so far
    validation_seconds: float = 0.0  # of the newest validation, or a guess before the first
    planned: Count = 0  # steps that there is time for; 0 if their pace is not known, or no limit
    planned_within: float = 0.0  # the time limit that this was planned for
    best_epoch: Count = 0  # 0 before there is one
    best_nll: float = math.inf
    lr: float = 0.0  # of the newest step
    lr_scale: float = 1.0  # halved by each roll-back
    rollbacks: Count = 0
    skipped: Count = 0
    records: list[EpochRecord] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Wall time of the whole training so far, all sessions together."""
        return self.past_seconds + self.epoch_seconds

    @property
    def train_nll(self) -> float:
        """Mean loss of the epoch so far."""
        return self.loss_sum / self.rows if self.rows else math.nan

    def finish_epoch(self, validation_nll: float) -> EpochRecord:
        """Records the epoch, and begins the next one."""
        record = EpochRecord(
            epoch=self.epoch,
            step=self.step,
            train_nll=self.train_nll,
            validation_nll=validation_nll,
            lr=self.lr,
            seconds=self.epoch_seconds,
            skipped=self.skipped,
            rollbacks=self.rollbacks,
        )
        self.records.append(record)
        self.epoch += 1
        self.past_seconds += record.seconds
        self.batch, self.loss_sum, self.rows, self.epoch_seconds = 0, 0.0, 0, 0.0
        return record


class Pace:
    """The steps of a training, and a watch that is looked at after each of them."""

    def __init__(self, config: TrainConfig, state: TrainingState, epoch: int) -> None:
        self.config, self.state = config, state
        self.epoch = epoch  # the steps of one
        self._taken = 0
        self._since = 0.0

    @property
    def steps(self) -> int:
        """The steps of the whole training, as far as it is known."""
        every, state = self.config.epochs * self.epoch, self.state
        planned = state.planned if state.planned_within == self.config.limit else 0
        return min(every, self.config.steps or planned or every)

    @property
    def out_of_time(self) -> bool:
        """Whether another step would leave no time for the last validation."""
        seconds = self.state.seconds + self.state.validation_seconds
        return self.config.limit is not None and seconds >= self.config.limit

    @property
    def unseen(self) -> int:
        """The steps that may be taken before the watch has to be looked at."""
        if self.config.limit is None or self.state.planned_within == self.config.limit:
            return self.epoch
        return (UNTIMED if self._taken < UNTIMED else PACED) - self._taken

    def step(self) -> bool:
        """Counts a step; says whether it has just planned how many there is time for."""
        state, limit = self.state, self.config.limit
        self._taken += 1
        if self._taken <= UNTIMED:
            self._since = state.seconds
        if limit is None or state.planned_within == limit or self._taken < PACED:
            return False
        pace = (state.seconds - self._since) / (self._taken - UNTIMED)
        left = max(limit * (1 - SPARE) - state.seconds - state.validation_seconds, 0.0)
        turn = max(pace * self.epoch + state.validation_seconds, 1e-9)
        state.planned = state.step + int(left / turn * self.epoch)
        state.planned_within = limit
        return True
