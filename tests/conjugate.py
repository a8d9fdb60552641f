"""A posterior in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Independent, Normal


class Conjugate:
    """The posterior N(x / 2, 1 / 2) of N(0, 1) and x ~ N(theta, 1), stretched and shifted."""

    def __init__(self, stretch: float = 1.0, shift: float = 0.0) -> None:
        self.stretch, self.shift = stretch, shift

    def at(self, x: Tensor) -> Independent:
        scale = self.stretch * math.sqrt(0.5)
        return Independent(Normal(x / 2 + self.shift, scale * torch.ones_like(x)), 1)

    def sample(self, shape: tuple[int, ...], x: Tensor) -> Tensor:
        return self.at(x).sample(shape)

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        return self.at(x).log_prob(theta)
