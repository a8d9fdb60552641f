"""The settings of one training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from maskedflow.files import CLOSED, Count, Finite, Positive, Size, check_fields

PACED = 25
"""The steps whose pace shows how many there is time for."""


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
            validation included; `None` is no limit. The pace of the first steps shows how many
            steps there is time for, which the training's history keeps.
        steps: Most steps, the last epoch of which may be cut short; `None` is no limit. They are
            taken whatever `time_limit` says.
        lr_steps: Steps over which the learning rate falls; `None` is all there are. With
            `History.steps` and `History.lr_steps` of another training, which a time limit may have
            cut short, it is repeated.
        compile: Whether the loss is compiled by :func:`torch.compile`.
        recompute: Whether what is within a transform is computed again for gradients instead of
            being kept, see :func:`maskedflow.transforms.recomputed.recomputing`: less memory for
            activations, of flows or batches so large that these count, and more time.

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
        ValueError: batch_size: expected at least 1, got 0
    """

    __pydantic_config__: ClassVar = CLOSED

    epochs: Size = 100
    batch_size: Size = 100
    lr: Positive = 1e-4
    weight_decay: Annotated[Finite, Ge(0)] = 1e-6
    schedule: Literal["constant", "cosine"] = "constant"
    patience: Size = 30
    clip: Annotated[float, Gt(0)] = 5.0
    seed: Count = 0
    time_limit: Positive | None = None
    steps: Size | None = None
    lr_steps: Size | None = None
    compile: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def limit(self) -> float | None:
        """The seconds that training may take: without end where its steps are counted."""
        return self.time_limit if self.steps is None else None

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, the first of which is 0.

        Where a time limit decides on the number of steps, it is not known in the first ones: the
        rate begins to fall after these.

        Args:
            step: The step.
            steps: The steps of the whole training, unless `lr_steps` is given.
        """
        if self.schedule == "constant":
            return self.lr
        steps = self.lr_steps or steps
        held = 0 if self.time_limit is None and self.steps is None else min(PACED, steps)
        done = max(step - held, 0) / max(steps - held, 1)
        return self.lr * cosine(done)


def cosine(done: float) -> float:
    """Half a cosine, from 1 down to 0, at a share of the way; 0 beyond it."""
    return (1 + math.cos(math.pi * min(done, 1.0))) / 2
