"""What happened in a training run: one record an epoch, in memory and on disk."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from maskedflow.files import CLOSED, Count, Size, html_facts, html_table, named, write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_log = logging.getLogger(__name__)

StopReason = Literal["epochs", "patience", "time_limit", "steps", "interrupted"]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: a line of `metrics.jsonl`.

    Attributes:
        epoch: Number of the epoch, from 1.
        step: Mini-batches seen since the start of the training.
        train_nll: Mean over the epoch's rows while the weights moved, in nats.
        validation_nll: Mean over the validation rows after the epoch, in nats.
        lr: Learning rate of the epoch's last step.
        seconds: Wall time of the epoch with its validation.
        skipped: Steps left out so far because loss or gradient was not finite.
        rollbacks: Returns to earlier weights so far.
    """

    __pydantic_config__: ClassVar = CLOSED

    epoch: Size
    step: Count
    train_nll: float
    validation_nll: float
    lr: float
    seconds: float
    skipped: Count
    rollbacks: Count


@dataclass(frozen=True)
class History:
    """What :func:`maskedflow.training.fit` returns.

    Attributes:
        records: One record an epoch.
        best_epoch: The epoch whose weights the flow has now.
        stopped_because: `"epochs"`, `"patience"`, `"time_limit"`, `"steps"` or `"interrupted"`.
        steps: The steps that there was time for.
        lr_steps: The steps that were planned, over which the learning rate fell.

    Example:
        >>> record = EpochRecord(1, 15, 2.5, 2.25, 1e-3, 0.5, 0, 0)
        >>> history = History((record,), best_epoch=1, stopped_because="epochs")
        >>> history.validation_nll, history.best_validation_nll
        ([2.25], 2.25)
    """

    records: tuple[EpochRecord, ...]
    best_epoch: int
    stopped_because: StopReason
    steps: int = 0
    lr_steps: int = 0

    @property
    def train_nll(self) -> list[float]:
        """Training NLL of each epoch, in nats."""
        return [record.train_nll for record in self.records]

    @property
    def validation_nll(self) -> list[float]:
        """Validation NLL of each epoch, in nats."""
        return [record.validation_nll for record in self.records]

    @property
    def best_validation_nll(self) -> float:
        """Validation NLL of the weights that were kept, in nats."""
        return next(r.validation_nll for r in self.records if r.epoch == self.best_epoch)

    @property
    def lr(self) -> list[float]:
        """Learning rate at the end of each epoch."""
        return [record.lr for record in self.records]

    @property
    def seconds(self) -> list[float]:
        """Wall time of each epoch."""
        return [record.seconds for record in self.records]

    def _repr_html_(self) -> str:
        """In a notebook: what came of the training, and its latest epochs."""
        facts = {
            "epochs": f"{len(self.records)}, the best is {self.best_epoch}",
            "best validation NLL": f"{self.best_validation_nll:.4f} nats",
            "stopped by": self.stopped_because,
            "time": f"{sum(self.seconds):.1f} s",
        }
        epochs = [
            (r.epoch, f"{r.train_nll:.4f}", f"{r.validation_nll:.4f}", f"{r.lr:.3g}")
            for r in reversed(self.records)
        ]
        heading = "epoch", "training NLL", "validation NLL", "learning rate"
        return html_facts("training", facts) + html_table(heading, epochs, most=10)


class RunLog:
    """`training.log` for people, `metrics.jsonl` for programs, and maybe events for TensorBoard.

    Without a folder nothing is written.
    """

    def __init__(self, folder: Path | None, tensorboard: bool = False) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._tensorboard = tensorboard and folder is not None
        self._writer: SummaryWriter | None = None

    def start(self, records: list[EpochRecord], size: int) -> None:
        """Goes back to a checkpoint: its records, and the first `size` bytes of the log.

        What an interrupted session wrote after the checkpoint will happen again.
        """
        if self._folder is None:
            return
        log, metrics = self._folder / "training.log", self._folder / "metrics.jsonl"
        with named(log), log.open("ab") as file:
            file.truncate(min(size, file.tell()))
        write_text(metrics, "".join(_json_line(record) for record in records))
        if self._tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # What an earlier session wrote is dropped; the checkpoint's epochs are written again.
            self._writer = SummaryWriter(str(self._folder), purge_step=1)
            self._events(records)

    def line(self, text: str) -> None:
        """Adds a line to `training.log`, after the time of day, and logs it for debugging."""
        _log.debug(text)
        self._append("training.log", f"{datetime.now().isoformat(' ', 'seconds')}  {text}\n")

    def record(self, record: EpochRecord, better: bool) -> None:
        """Adds an epoch to both files; `better` says that it is the best so far."""
        self.line(
            f"epoch {record.epoch}: train {record.train_nll:.6f}, "
            f"validation {record.validation_nll:.6f} nats, lr {record.lr:.3g}, "
            f"{record.seconds:.1f} s" + (", best" if better else "")
        )
        self._append("metrics.jsonl", _json_line(record))
        self._events([record])

    def _append(self, name: str, text: str) -> None:
        if self._folder is not None:
            path = self._folder / name
            with named(path), path.open("a", encoding="utf-8") as file:
                file.write(text)

    def _events(self, records: list[EpochRecord]) -> None:
        if self._writer is None:
            return
        for record in records:
            for name, value in asdict(record).items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file, if there is one."""
        if self._writer is not None:
            self._writer.close()

    @property
    def size(self) -> int:
        """Bytes of `training.log`."""
        path = None if self._folder is None else self._folder / "training.log"
        return path.stat().st_size if path is not None and path.exists() else 0


def _json_line(record: EpochRecord) -> str:
    # JSON knows no nan and no infinity
    values = {key: value if math.isfinite(value) else None for key, value in asdict(record).items()}
    return json.dumps(values) + "\n"
