"""Rows that weigh differently in training."""

from __future__ import annotations

from torch import Tensor, nn


class Weighted(nn.Module):
    """A density whose terms weigh as much as the last number of the context.

    Trained by :func:`.fit`, whose loss is a mean, it goes by weighted likelihood.
    """

    def __init__(self, density: nn.Module) -> None:
        super().__init__()
        self.density = density

    def forward(self, c: Tensor) -> Weighted:
        given, self.weight = split_weight(c)
        self.made = self.density(given)
        return self

    def log_prob(self, x: Tensor) -> Tensor:
        found: Tensor = self.weight * self.made.log_prob(x)
        return found


def split_weight(c: Tensor) -> tuple[Tensor | None, Tensor]:
    """The context, none if that is all, and the weights behind it."""
    return c[:, :-1] if c.shape[1] > 1 else None, c[:, -1]
