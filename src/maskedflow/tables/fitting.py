"""Training on rows that weigh differently, in an amount of work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskedflow.data import Split
from maskedflow.training import History, TrainConfig, evaluate, fit

from .work import training_work

__all__ = ["Weighed", "batch_size_of", "epochs_within", "train"]


@dataclass(frozen=True)
class Weighed:
    """Rows that weigh differently.

    Args:
        split: The rows.
        weight: How much each counts, with shape (n,).
    """

    split: Split
    weight: Tensor

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, rows: Tensor) -> Weighed:
        c = self.split.context
        part = Split(self.split.x[rows], None if c is None else c[rows])
        return Weighed(part, self.weight[rows])

    def with_x(self, x: Tensor) -> Weighed:
        """The same contexts and weights with other numbers."""
        return Weighed(Split(x, self.split.context), self.weight)

    def mean(self, log_prob: Tensor) -> float:
        """The mean of a number for each row."""
        return float((self.weight * log_prob).sum() / self.weight.sum())

    def score(self, density: nn.Module) -> float:
        """The mean log-density, in nats."""
        return self.mean(evaluate(density, self.split))

    @property
    def alike(self) -> bool:
        """Whether all rows count alike."""
        return bool((self.weight == self.weight[0]).all())

    def single(self, weighed: bool) -> Split:
        """The rows in single precision, with their weights, if asked for, after the context."""
        c = self.split.context
        if weighed:
            weight = (self.weight / self.weight.mean())[:, None]
            c = weight if c is None else torch.cat([c, weight.to(c)], dim=1)
        return Split(self.split.x.float(), None if c is None else c.float())


class _WeighedDensity(nn.Module):
    """A density whose terms weigh as much as the last number of the context says."""

    def __init__(self, density: nn.Module) -> None:
        super().__init__()
        self.density = density

    def forward(self, c: Tensor) -> _WeighedDensity:
        self.weight = c[:, -1]
        self.made = self.density(c[:, :-1] if c.shape[1] > 1 else None)
        return self

    def log_prob(self, x: Tensor) -> Tensor:
        found: Tensor = self.weight * self.made.log_prob(x)
        return found


def batch_size_of(rows: int) -> int:
    """The rows of a step."""
    return 256 if rows < 20_000 else 512 if rows < 100_000 else 1000


def epochs_within(work: float, rows: int, weights: int, batch_size: int) -> int:
    """How many epochs are no more than so much work."""
    return int(work / training_work(rows, weights, batch_size))


def train(density: nn.Module, rows: Weighed, judges: Weighed, config: TrainConfig) -> History:
    """Trains in single precision, by weighted log-likelihood, until judges see no gain.

    Args:
        density: The lazy density.
        rows: The rows to fit.
        judges: The rows that choose the epoch.
        config: The settings.
    """
    weighed = not (rows.alike and judges.alike)
    trained = _WeighedDensity(density) if weighed else density
    return fit(trained, rows.single(weighed), judges.single(weighed), config)
