"""How many steps of training there is time for, by the pace of the first ones."""

from __future__ import annotations

from .config import PACED
from .state import TrainingState

__all__ = ["Pace"]

UNTIMED = 5
"""Steps that are not timed: the first ones compile."""
SPARE = 0.05
"""The share of the time that is left for steps which take longer."""


class Pace:
    """A watch that is looked at after each step."""

    def __init__(self) -> None:
        self._taken = 0
        self._since = 0.0

    def plan(self, state: TrainingState, limit: float, epoch: int) -> bool:
        """Plans the steps that there is time for, once; tells whether it has.

        Args:
            state: Where the training is.
            limit: The seconds that all of it may take.
            epoch: The steps of an epoch.
        """
        self._taken += 1
        if self._taken <= UNTIMED:
            self._since = state.seconds
        if state.planned_within == limit or self._taken < PACED:
            return False
        pace = (state.seconds - self._since) / (self._taken - UNTIMED)
        left = max(limit * (1 - SPARE) - state.seconds - state.validation_seconds, 0.0)
        turn = max(pace * epoch + state.validation_seconds, 1e-9)
        state.planned = state.step + int(left / turn * epoch)
        state.planned_within = limit
        return True
