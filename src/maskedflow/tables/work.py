"""How much a search may do, in rows, weights and steps: a busy machine changes none of them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import median

import torch

from maskedflow.data import Split
from maskedflow.flows.flow import standard_normal
from maskedflow.training import Ranks, TrainConfig, fit

from .missing import PartialFlow
from .plan import build_layers

_PROBE = (32, 256, 20)
"""The most features, the rows of a step and the steps by which a machine's pace is measured."""


@dataclass(frozen=True)
class Pace:
    """What training costs: products a unit of work, and units for a weight's step, step, epoch."""

    products: float
    weight: float
    step: float
    epoch: float

    def training_work(self, rows: float, weights: float, batch_size: int) -> float:
        """The work of one epoch."""
        steps = math.ceil(rows / batch_size)
        return (
            rows * weights / self.products
            + steps * (self.weight * weights + self.step)
            + (self.epoch)
        )

    def epochs_within(self, work: float, rows: int, weights: int, batch_size: int) -> int:
        """How many epochs are no more than so much work."""
        return int(work / self.training_work(rows, weights, batch_size))


COMPILED = Pace(products=1.6e10, weight=5e-9, step=2e-4, epoch=5e-3)
"""Of steps that are compiled, as those of a flow: a unit is about a second of a core."""
INTERPRETED = Pace(products=5e9, weight=0.0, step=3e-3, epoch=2e-2)
"""Of steps through torch."""


def default_work(rows: int, columns: int) -> float:
    """The work that a table is worth: 60 for 3,000 rows of 10 columns, 20 to 300."""
    return min(300.0, max(20.0, 60.0 * math.sqrt(rows * columns / 30_000)))


def batch_size_of(rows: int) -> int:
    """The rows of a step."""
    sizes = {500: 32, 1_500: 64, 5_000: 128, 20_000: 256, 100_000: 512}
    return next((size for most, size in sizes.items() if rows < most), 1000)


def work_within(seconds: float, features: int, since: float) -> float:
    """The work that this machine does within so many seconds `since`, by a few training steps.

    It has three digits, so that it is the same number wherever it is written down.
    """
    features, rows, steps = min(max(features, 1), _PROBE[0]), *_PROBE[1:]
    layers = build_layers(features, 0, "as", 128, 0)
    flow = PartialFlow(layers, standard_normal(features), [None] * features)
    x = torch.zeros(rows * steps, features)
    part = Split(x)
    config = TrainConfig(epochs=1, batch_size=rows)
    turns = []
    for _ in range(4):
        begun = time.perf_counter()
        fit(flow, part, part[:1], config, ranks=Ranks(alone=True))
        turns.append(time.perf_counter() - begun)
    weights = sum(parameter.numel() for parameter in flow.parameters())
    # In the first turn what is not compiled yet is compiled, and any may have to wait for a core.
    pace = median(turns[1:]) / COMPILED.training_work(len(x), weights, rows)
    left = max(seconds - (time.perf_counter() - since), 0.5 * seconds)
    return float(f"{left / pace:.3g}")


class Budget:
    """Work of which some is spent."""

    def __init__(self, total: float) -> None:
        self.total, self.spent = total, 0.0

    @property
    def left(self) -> float:
        return max(self.total - self.spent, 0.0)

    @property
    def share(self) -> float:
        """How much of the work is done."""
        return min(self.spent / self.total, 1.0) if self.total else 1.0
