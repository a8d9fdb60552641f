"""The settings of one training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from maskedflow.files import CLOSED

PACED = 25
"""The steps whose pace tells how many there is time for."""


@dataclass(frozen=True)
class TrainConfig:
    r"""Settings of :func:`maskedflow.training.fit`; the defaults are the MAF paper's.

    Adam runs with :math:`\beta = (0.9, 0.999)` and :math:`\epsilon = 10^{-8}`.

    Args:
        epochs: Most passes over the training rows.
        batch_size: Rows of a mini-batch; the last, smaller batch of an epoch is used too.
        lr: Learning rate at the start.
        weight_decay: L2 penalty, added to the gradient as `weight_decay * weight`.
        schedule: `"constant"`, or `"cosine"`: half a cosine from `lr` down to zero over all
            steps.
        patience: Epochs without a better validation NLL after which training stops.
        clip: Largest norm of the whole gradient, longer ones are scaled down; `inf` is no limit.
        seed: Seed of every random draw: shuffling, dequantization noise, dropout.
        time_limit: Most seconds of training, all sessions of a resumed run together, last
            validation included; `None` is no limit. The pace of the first steps tells how many
            steps there is time for, which the training's history keeps.
        steps: Most steps, the last epoch of which may be cut short; `None` is no limit. They are
            taken whatever `time_limit` says.
        lr_steps: Steps over which the learning rate falls; `None` is all there are. With
            `History.steps` and `History.lr_steps` of another training, which a time limit may have
            cut short, it is repeated.
        compile: Whether the loss is compiled by :func:`torch.compile`.

    Raises:
        ValueError: If a setting is out of its range.

    References:
        Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017)
        https://arxiv.org/abs/1705.07057

    Example:
        >>> TrainConfig(epochs=10, lr=1e-3).schedule
        'constant'
        >>> TrainConfig(batch_size=0)
        Traceback (most recent call last):
        ...
        ValueError: batch_size: expected an integer of at least 1, got 0
    """

    __pydantic_config__: ClassVar = CLOSED

    epochs: int = 100
    batch_size: int = 100
    lr: float = 1e-4
    weight_decay: float = 1e-6
    schedule: Literal["constant", "cosine"] = "constant"
    patience: int = 30
    clip: float = 5.0
    seed: int = 0
    time_limit: float | None = None
    steps: int | None = None
    lr_steps: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "patience": 1, "seed": 0}
        least |= {name: 1 for name in ("steps", "lr_steps") if getattr(self, name) is not None}
        for name, smallest in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
                raise ValueError(
                    f"{name}: expected an integer of at least {smallest}, got {value!r}"
                )
        if not _is_number(self.lr) or not 0 < self.lr < math.inf:
            raise ValueError(f"lr: expected a positive number, got {self.lr!r}")
        if not _is_number(self.weight_decay) or not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: expected a number >= 0, got {self.weight_decay!r}")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule: expected 'constant' or 'cosine', got {self.schedule!r}")
        if not _is_number(self.clip) or not self.clip > 0:
            raise ValueError(f"clip: expected a positive number or inf, got {self.clip!r}")
        if self.time_limit is not None and not (
            _is_number(self.time_limit) and 0 < self.time_limit < math.inf
        ):
            raise ValueError(
                f"time_limit: expected positive seconds or None, got {self.time_limit!r}"
            )

    @property
    def limit(self) -> float | None:
        """The seconds that training may take: without end where its steps are counted."""
        return self.time_limit if self.steps is None else None

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, the first of which is 0.

        Where a time limit tells the number of steps, it is not known in the first ones: the rate
        begins to fall after these.

        Args:
            step: The step.
            steps: The steps of the whole training, unless `lr_steps` tells others.
        """
        if self.schedule == "constant":
            return self.lr
        steps = self.lr_steps or steps
        held = 0 if self.time_limit is None and self.steps is None else min(PACED, steps)
        done = max(step - held, 0) / max(steps - held, 1)
        return self.lr * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
