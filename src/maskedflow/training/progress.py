"""A progress bar on a terminal or in a notebook, and how long a training will take."""

from __future__ import annotations

import logging
import math
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from .config import TrainConfig

if TYPE_CHECKING:
    from rich.progress import Progress

_log = logging.getLogger(__name__)


def make_bar(*columns: Any) -> Progress | None:
    """A progress bar in a notebook, or on standard error, gone in the end; else None."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if console.is_jupyter:
        from .notebook import NotebookProgress

        return NotebookProgress(*columns)
    # Not `is_terminal`: FORCE_COLOR, which notebooks set for what their cells run, is no terminal.
    return Progress(*columns, console=console, transient=True) if console.file.isatty() else None


TIMED = 10
"""The steps whose pace tells how long a training will take; a minute is not worth telling."""


class ProgressBar(ExitStack):
    """Steps of the current epoch with training and validation NLL.

    How long the training will take is logged once, by the pace of the first steps.
    """

    def __init__(self, enabled: bool, config: TrainConfig, steps: int) -> None:
        super().__init__()
        self._config, self._epochs, self._steps = config, config.epochs, steps
        self._since: tuple[int, float] | None = None
        self._tells = True
        self._validation, self._due = "", 0.0
        self._progress = None
        if enabled:
            from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

            columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self._progress = make_bar("{task.description}", *columns, "{task.fields[losses]}")

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._task = self.enter_context(self._progress).add_task(
                "", total=self._steps, losses=""
            )
        return self

    def step(self, epoch: int, batch: int, train_nll: float) -> None:
        """Shows the running mean of the epoch's loss, at most ten times a second."""
        now = time.monotonic()
        if self._tells:
            self._tell(epoch, batch, now)
        if self._progress is not None and (now >= self._due or batch == self._steps):
            self._due = now + 0.1
            self._progress.update(
                self._task,
                completed=batch,
                description=f"epoch {epoch}/{self._epochs}",
                losses=f"train {train_nll:.4f}{self._validation}",
            )

    def _tell(self, epoch: int, batch: int, now: float) -> None:
        """Logs how long the rest will take, as soon as that can be known."""
        if self._since is None:
            self._since = batch, now
        done = batch - self._since[0]
        if done < TIMED and batch < self._steps:
            return
        self._tells = False
        pace = (now - self._since[1]) / max(done, 1)
        every = self._epochs * self._steps
        left = min(every, self._config.steps or every) - (epoch - 1) * self._steps - batch
        seconds = min(left * pace, self._config.limit or math.inf)
        if seconds > 60:
            told = f"about {_told(seconds)} to go, or less if validation rows stop it earlier; "
            told += f"{_told(self._steps * pace)} an epoch"
            _log.info(told)

    def validated(self, validation_nll: float, best_nll: float) -> None:
        """Shows the newest and the best validation NLL from now on."""
        self._validation = f"  validation {validation_nll:.4f}  best {best_nll:.4f} nats"


def _told(seconds: float) -> str:
    """A time to two digits.

    Example:
        >>> _told(42.3), _told(800), _told(9000)
        ('42 s', '13 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
