"""A training that uses all that has a state, and a way to stop it at a step."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.chain import Descent
from maskedflow.data import Split
from maskedflow.training import TrainConfig

CONFIG = TrainConfig(epochs=3, batch_size=16, lr=1e-2, schedule="cosine", seed=7)


def images(n: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 8, (n, 4), dtype=torch.uint8, generator=generator)
    return Split(x, torch.randn(n, 2, generator=generator))


TRAIN, VALIDATION = images(120, seed=0), images(30, seed=1)


def everything(seed: int = 0, random: bool = False) -> mf.flows.Flow:
    """A flow with all that has a state: noise, batch norm, context, dropout, random masks."""
    generator = torch.Generator().manual_seed(seed)
    maf = mf.flows.MAF(
        4,
        context=2,
        transforms=2,
        hidden_features=(16, 16),
        batch_norm=True,
        degrees="random" if random else "sequential",
        generator=generator,
    )
    scale = mf.transforms.Standardize(torch.zeros(4), torch.full((4,), 8.0))
    steps = [mf.transforms.Dequantize(), scale, mf.transforms.Logit(0.05)]
    flow = mf.flows.Flow([*steps, *maf.transform.transforms], maf.base, nn.Dropout(0.2))
    return flow


def interrupt(flow: nn.Module, at: int, kill: bool = False) -> None:
    """Makes a training step of the flow fail, counted from 0; its steps go through torch."""
    forward, left = flow.forward, iter(range(at))

    def call(c: Tensor | None = None) -> Any:
        if flow.training and next(left, None) is None:
            stop(kill)
        return forward(c)

    flow.forward = call


def interrupt_compiled(patch: pytest.MonkeyPatch, at: int, kill: bool = False) -> None:
    """Makes a compiled training step fail, counted from 0, in the middle of a call if need be.

    The steps before it have moved the weights, and nobody has taken note of them.
    """
    take, left = Descent.take, at

    def call(
        self: Descent, x: Any, c: Any, order: Any, bounds: Any, rates: Any, weight: Any
    ) -> Any:
        nonlocal left
        if left >= len(rates):
            found = take(self, x, c, order, bounds, rates, weight)
            left -= len(found[0])
            return found
        take(self, x, c, order, bounds[:left], rates[:left], weight)
        stop(kill)

    patch.setattr(Descent, "take", call)


def stop(kill: bool) -> None:
    """Interrupts this process, or kills it."""
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
    raise KeyboardInterrupt
