"""A progress bar on a terminal, nothing anywhere else."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress


def make_bar(*columns: Any) -> Progress | None:
    """A progress bar on standard error that is gone in the end; None if that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    return Progress(*columns, console=console, transient=True)


class ProgressBar(ExitStack):
    """Steps of the current epoch with training and validation NLL, drawn on standard error."""

    def __init__(self, enabled: bool, epochs: int, steps: int) -> None:
        super().__init__()
        self._epochs, self._steps = epochs, steps
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
        if self._progress is not None and (now >= self._due or batch == self._steps):
            self._due = now + 0.1
            self._progress.update(
                self._task,
                completed=batch,
                description=f"epoch {epoch}/{self._epochs}",
                losses=f"train {train_nll:.4f}{self._validation}",
            )

    def validated(self, validation_nll: float, best_nll: float) -> None:
        """Shows the newest and the best validation NLL from now on."""
        self._validation = f"  validation {validation_nll:.4f}  best {best_nll:.4f} nats"
