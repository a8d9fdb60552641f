"""Training on rows that weigh differently."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskedflow.data import Split
from maskedflow.training import History, TrainConfig, evaluate, fit

__all__ = ["Weighed", "train"]


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
        return Weighed(self.split[rows], self.weight[rows])

    def with_x(self, x: Tensor) -> Weighed:
        """The same contexts and weights with other numbers."""
        return Weighed(Split(x, self.split.context), self.weight)

    def mean(self, log_prob: Tensor) -> float:
        """The mean of a number for each row."""
        return float((self.weight * log_prob).sum() / self.weight.sum())

    def score(self, density: nn.Module) -> float:
        """The mean log-density, in nats."""
        return self.mean(evaluate(density, self.split))

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


def train(density: nn.Module, rows: Weighed, validation: Weighed, config: TrainConfig) -> History:
    """Trains by weighted log-likelihood, in single precision, until validation shows no gain."""
    weighed = any(bool((part.weight != part.weight[0]).any()) for part in (rows, validation))
    trained = _WeighedDensity(density) if weighed else density
    return fit(trained, rows.single(weighed), validation.single(weighed), config)
