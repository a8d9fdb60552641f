"""Noise that a seed determines."""

from __future__ import annotations

import torch
from torch import nn


class Noisy(nn.Module):
    """A module that draws noise from a generator of its own.

    Training and evaluation seed it, so that their numbers can be had again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Starts the noise anew from a seed."""
        self.generator.manual_seed(seed)
