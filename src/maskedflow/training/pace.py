"""How many steps a training takes, by its settings or by the pace of its first steps."""

from __future__ import annotations

from .config import PACED, TrainConfig
from .state import TrainingState

UNTIMED = 5
"""Steps that are not timed: the first ones compile."""
SPARE = 0.05
"""The share of the time that is left for steps which take longer."""


class Pace:
    """The steps of a training, and a watch that is looked at after each of them.

    Args:
        config: The settings.
        state: Where the training is.
        epoch: The steps of an epoch.
    """

    def __init__(self, config: TrainConfig, state: TrainingState, epoch: int) -> None:
        self.config, self.state, self.epoch = config, state, epoch
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
