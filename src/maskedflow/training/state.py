"""The training checkpoint `latest.safetensors`: all that is needed to go on as if never stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import with_config
from torch import Tensor, nn
from typing_extensions import TypedDict

from maskedflow.files import CLOSED, Count, Size, blame

from .checkpoint import EXTRA, METADATA, load_weights, metadata_of, read, to_json, write
from .config import TrainConfig
from .history import EpochRecord

TRAINING = "training"
"""Key of the header entry that holds the JSON of config, state and data sizes."""

MOMENTS = f"optimizer{EXTRA}"
"""Prefix of the optimizer's tensors: `optimizer/<kind>/<parameter>`."""

Moments = dict[str, dict[str, Tensor]]
"""The optimizer's tensors, by parameter and kind."""

FREE = ("epochs", "patience", "time_limit", "steps", "lr_steps")
"""Settings that may change on resuming: they say when to stop, not how to train."""


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


@with_config(CLOSED)
class _Training(TypedDict):
    """What the entry `TRAINING` holds."""

    config: dict[str, Any]
    data: dict[str, Any]
    state: TrainingState
    log_size: Count


def write_latest(
    path: Path,
    flow: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    *,
    config: TrainConfig,
    data: Mapping[str, Any],
    log_size: int,
    metadata: Mapping[str, Any],
) -> None:
    """Writes the training checkpoint, atomically."""
    tensors = flow.state_dict()
    for name, parameter in flow.named_parameters():
        for kind, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"{MOMENTS}{kind}{EXTRA}{name}"] = tensor
    training = {
        "config": asdict(config),
        "data": dict(data),
        "state": asdict(state),
        "log_size": log_size,
    }
    write(path, tensors, {METADATA: to_json(dict(metadata)), TRAINING: to_json(training)})


def read_latest(
    path: Path, flow: nn.Module, *, config: TrainConfig, data: Mapping[str, Any]
) -> tuple[TrainingState, int, Moments]:
    """Reads the training checkpoint: its weights into the flow, state, size of the log, moments."""
    tensors, header = read(path)
    if TRAINING not in header:
        raise ValueError(f"{path}: holds weights only, cannot resume from it")
    training = metadata_of(path, header, TRAINING, _Training)
    then = training["config"] | training["data"]
    for name, value in {**asdict(config), **data}.items():
        before = then.get(name)
        if name not in FREE and before != value:
            raise ValueError(f"{name}: {path} was trained with {before!r}, got {value!r}")
    load_weights(path, flow, tensors)
    moments: Moments = {}
    with blame(path, "not a training checkpoint"):
        for key, tensor in tensors.items():
            if key.startswith(MOMENTS):
                kind, name = key.removeprefix(MOMENTS).split(EXTRA, 1)
                moments.setdefault(name, {})[kind] = tensor
    return training["state"], training["log_size"], moments


def load_moments(flow: nn.Module, optimizer: torch.optim.Optimizer, moments: Moments) -> None:
    """Gives each parameter its moments by name; the optimizer itself counts parameters."""
    names = {parameter: name for name, parameter in flow.named_parameters()}
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = {}
    for i, parameter in enumerate(trained):
        state = moments.get(names[parameter], {})
        for kind, tensor in state.items():
            if tensor.ndim > 0 and tensor.shape != parameter.shape:
                raise ValueError(
                    f"{names[parameter]}: the checkpoint's {kind} has shape "
                    f"{tuple(tensor.shape)}, the parameter has {tuple(parameter.shape)}"
                )
        if state:
            states[i] = state
    if len(states) != len(moments):
        raise ValueError("flow: other parameters are trained than in the checkpoint")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
