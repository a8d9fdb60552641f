"""A progress bar on a terminal, nothing anywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class ProgressBar:
    """Steps of the current epoch with training and validation NLL, drawn on standard error.

    Args:
        enabled: Whether a bar is wanted; it is drawn only when standard error is a terminal.
        epochs: Number of epochs.
        steps: Number of steps of an epoch.
    """

    def __init__(self, enabled: bool, epochs: int, steps: int) -> None:
        self._epochs, self._steps = epochs, steps
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._validation = ""
        self._due = 0.0
        if enabled:
            from rich.console import Console

            console = Console(stderr=True)
            if console.is_terminal:
                self._progress = _bar(console)

    def __enter__(self) -> ProgressBar:
        if self._progress is not None:
            self._progress.start()
            self._task = self._progress.add_task("", total=self._steps, losses="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, epoch: int, batch: int, train_nll: float) -> None:
        """Shows the running mean of the epoch's loss, at most ten times a second."""
        if self._progress is None or self._task is None:
            return
        now = time.monotonic()
        if now >= self._due or batch == self._steps:
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


def _bar(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
        console=console,
        transient=True,
    )
