"""A run's folder: making one by training, and opening it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from maskedflow import data, training
from maskedflow.data import Dataset, Seen, Split, Trace
from maskedflow.data.split import Dealing
from maskedflow.files import blame, check, exclusive, parse_json, read_text
from maskedflow.flows import Flow, TemporalMAF
from maskedflow.training import History, checkpoint

from .build import build_flow, check_numbers, start_at_data
from .config import RunConfig
from .series import cut
from .trace import seen_by, trace_of

__all__ = ["Run", "load_run", "train_run"]

LOG = 2**28
"""Bytes of the longest log that is read."""
_TRACE = "rows"
"""The key of a checkpoint's metadata under which the trace of its rows is."""


@dataclass(frozen=True)
class Run:
    """A trained flow with its record.

    Args:
        directory: The run's folder.
        config: What `config.toml` says.
        flow: The flow with its best weights, in evaluation mode and in the data's own units.
        trace: What is remembered of the rows that it was trained on; None of an older run.
    """

    directory: Path
    config: RunConfig = field(repr=False)
    flow: Flow | TemporalMAF = field(repr=False)
    trace: Trace | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.name

    @property
    def dtype(self) -> torch.dtype:
        """What rows and contexts have to be in: float64 where float32 would lose their digits."""
        return torch.float64 if self.config.flow.wide else torch.float32

    @property
    def columns(self) -> tuple[str, ...]:
        """A name for each feature."""
        return self.config.data.columns

    @property
    def context_columns(self) -> tuple[str, ...]:
        """A name for each context dimension, none for an unconditional flow."""
        return self.config.data.context_columns

    @property
    def picture(self) -> Path:
        """The picture of samples beside data."""
        return self.directory / "samples" / f"{self.name}_samples.png"

    @property
    def summary(self) -> Path:
        """The results, as text."""
        return self.directory / "results_summary.txt"

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """One record an epoch, from `logs/metrics.jsonl`; none when the file is gone."""
        path = self.directory / "logs" / "metrics.jsonl"
        if not path.is_file():
            return []
        lines = read_text(path, LOG).splitlines()
        with blame(path, "not the log of a training"):
            return [check(dict[str, Any], parse_json(line)) for line in lines]

    def seen(self, split: Split) -> Seen | None:
        """How many of some rows it was trained on; None if that is not known."""
        what = "rows" if self.config.data.image_shape is None else "images"
        return seen_by(self.trace, split, self.config.data.window, what)

    def dataset(
        self, *, data_dir: Path | None = None, file: Path | None = None, download: bool = False
    ) -> Dataset:
        """Loads the rows that the run was trained on, split as they were then.

        Args:
            data_dir: Where to look, if not where the run found them.
            file: The table, if it is no longer where it was.
            download: Whether a known data set may be fetched.

        Raises:
            FileNotFoundError: If they are not there.
            ValueError: If they have other columns or another number of rows than then.
        """
        source = self.config.data
        found = open_data(
            dataset=source.dataset,
            file=file or source.file,
            data_dir=data_dir or source.data_dir,
            context=() if source.time else source.context_columns,
            labels=source.labels,
            seed=source.seed,
            download=download,
            time=source.time,
            window=source.window,
            stream=source.stream,
            dealing=source.dealing,
            continuous=self.config.flow.continuous,
        )
        if self.dtype == torch.float32 and found.train.x.dtype == torch.float64:
            found = found.in_float32()
        for what, now, then in (
            ("columns", found.columns, source.columns),
            ("rows", rows_of(found), source.rows),
        ):
            if now != then:
                raise ValueError(
                    f"{found.name}: {what} {now}, but {self.directory} was trained on {then}"
                )
        return found


def open_data(
    *,
    dataset: str | None,
    file: Path | str | None,
    data_dir: Path | str | None = None,
    context: tuple[str, ...] = (),
    labels: bool = False,
    seed: int = 0,
    download: bool = False,
    time: str | None = None,
    window: int | None = None,
    stream: bool = False,
    dealing: Dealing = "values",
    continuous: bool = False,
) -> Dataset:
    """Loads a known data set by name, or else opens a table, a time series if `time` is named.

    With `stream` the table's training rows stay on disk. By `dealing` copies of a table's rows go
    to one side ("values"), or each by itself ("rows"); if `continuous`, values on a grid are left
    as they are.
    """
    if dataset is None:
        assert file is not None
        if time is not None:
            return data.open_series(file, time, window=window)
        opened = data.open_streamed if stream else data.open_table
        return opened(file, context=context, seed=seed, dealing=dealing, continuous=continuous)
    return data.load(dataset, data_dir, labels=labels, download=download, seed=seed)


def rows_of(dataset: Dataset) -> tuple[int, int, int]:
    """The number of training, validation and test rows."""
    train = dataset.train if dataset.streamed is None else dataset.streamed
    return len(train), len(dataset.validation), len(dataset.test)


def load_run(path: str | Path) -> Run:
    """Opens a run: its record, and the flow with its best weights. Nothing is unpickled.

    Args:
        path: The run's folder, such as `maf_results/power`.

    Returns:
        The run; `run.flow().log_prob(x)` is in nats, in the units of the data.

    Raises:
        FileNotFoundError: If there is no such folder, record or checkpoint.
        ValueError: If the record or the checkpoint is damaged, or they do not belong together.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such run")
    record, best = directory / "config.toml", directory / "checkpoints" / "best.safetensors"
    config = RunConfig.read(record)
    tensors, header = checkpoint.read(best)
    metadata = checkpoint.metadata_of(best, header, checkpoint.METADATA, dict[str, Any])
    if metadata.get("record", config.digest) != config.digest:
        raise ValueError(
            f"{record}: [flow] or the columns of [data] are not those that {best} was trained with"
        )
    with blame(record, f"not the record that {best} was trained with"):
        check_numbers(config, tensors)
        flow = build_flow(config.flow)
    checkpoint.load_weights(best, flow, tensors)
    with blame(best, "not a checkpoint whose trace of rows can be read"):
        trace = Trace.from_plain(metadata.get(_TRACE))
    return Run(directory, config, flow.eval(), trace)


def train_run(
    directory: Path,
    config: RunConfig,
    dataset: Dataset,
    *,
    resume: bool = False,
    progress: bool = False,
    tensorboard: bool = False,
    initialise: Callable[[Flow, torch.Generator], None] | None = None,
) -> tuple[Run, History]:
    """Writes the record, trains the flow, and returns the run with its best weights.

    Args:
        directory: The run's folder, made when missing.
        config: The record.
        dataset: The rows, as the record says.
        resume: Whether to go on from `checkpoints/latest.safetensors`.
        progress: Whether to draw a progress bar.
        tensorboard: Whether to write TensorBoard's event files into `logs` too.
        initialise: Draws other first weights, from a generator of the record's seed.

    Raises:
        ValueError: If the record cannot be read again, or another process trains in this folder.
    """
    digest = RunConfig.from_toml(config.to_toml()).digest
    flow = build_flow(config.flow, dataset.preprocessing(), dataset.embedding())
    if initialise is not None and isinstance(flow, Flow):
        initialise(flow, torch.Generator().manual_seed(config.flow.seed))
    if isinstance(flow, Flow):
        start_at_data(flow, dataset.train, config.flow.seed)
    trace = trace_of(dataset)
    train, validation = dataset.train, dataset.validation
    if dataset.window is not None:
        # Each row is in four windows, at four distances from the start.
        train, validation = (
            cut(split, dataset.window, -(-dataset.window // 4)) for split in (train, validation)
        )
    told = {"name": config.name, "versions": config.versions}
    with exclusive(directory):
        config.write(directory / "config.toml")
        history = training.fit(
            flow,
            train if dataset.streamed is None else dataset.streamed,
            validation,
            config.training,
            directory=directory,
            resume=resume,
            metadata={**told, "record": digest, _TRACE: trace.to_plain()},
            progress=progress,
            tensorboard=tensorboard,
        )
        if config.training.time_limit is not None and config.training.steps is None:
            # So that the record leads to this run again, on a machine of another pace too.
            taken: dict[str, Any] = {"steps": history.steps, "lr_steps": history.lr_steps}
            config = replace(
                config,
                training=replace(config.training, **taken),
                options={**config.options, **taken},
            )
            config.write(directory / "config.toml")
    return Run(directory, config, flow.eval(), trace), history
