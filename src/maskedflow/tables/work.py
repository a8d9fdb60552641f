"""How much a search may do, in rows, weights and steps: a busy machine changes none of them."""

from __future__ import annotations

import math
import time

import torch

from maskedflow.flows.flow import standard_normal

from .missing import PartialFlow
from .plan import build_layers

_PRODUCTS = 5e9
"""Rows times weights that one unit of work trains: a second of one core, more or less."""
_STEP, _EPOCH = 3e-3, 2e-2
"""What a step costs besides, and an epoch with its validation."""
_PROBE = (64, 256, 5)
"""The most features, the rows of a step and the steps by which a machine's pace is measured."""


def default_work(rows: int, columns: int) -> float:
    """The work that a table is worth: 60 for 3,000 rows of 10 columns, 300 at most."""
    return min(300.0, 60.0 * math.sqrt(rows * columns / 30_000))


def training_work(rows: float, weights: float, batch_size: int) -> float:
    """The work of one epoch."""
    return rows * weights / _PRODUCTS + math.ceil(rows / batch_size) * _STEP + _EPOCH


def epochs_within(work: float, rows: int, weights: int, batch_size: int) -> int:
    """How many epochs are no more than so much work."""
    return int(work / training_work(rows, weights, batch_size))


def batch_size_of(rows: int) -> int:
    """The rows of a step."""
    return 256 if rows < 20_000 else 512 if rows < 100_000 else 1000


def work_within(seconds: float, features: int, since: float) -> float:
    """The work that this machine does within so many seconds `since`, by a few training steps.

    It has three digits, so that it is the same number wherever it is written down.
    """
    features, rows, steps = min(max(features, 1), _PROBE[0]), *_PROBE[1:]
    flow = PartialFlow(
        build_layers(features, 0, "as", 128, 0), standard_normal(features), [None] * features
    )
    parameters = list(flow.parameters())
    optimizer = torch.optim.Adam(parameters, fused=True)
    x = torch.zeros(rows, features)
    begun = 0.0
    for step in range(2 * steps):
        if step == steps:  # what is not compiled yet is compiled in the first steps
            begun = time.perf_counter()
        optimizer.zero_grad()
        (-flow().log_prob(x).mean()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    weights = sum(parameter.numel() for parameter in parameters)
    done = steps * (training_work(rows, weights, rows) - _EPOCH)
    pace = (time.perf_counter() - begun) / done
    left = max(seconds - (time.perf_counter() - since), 0.5 * seconds)
    return float(f"{left / pace:.3g}")


class Budget:
    """Work of which some is spent."""

    def __init__(self, total: float) -> None:
        self.total, self.spent = total, 0.0

    @property
    def left(self) -> float:
        return max(self.total - self.spent, 0.0)
