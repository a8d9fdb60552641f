"""Noise that a seed determines."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .part import current_part


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

    def uniform(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Draws from [0, 1); for rows that are a part of a batch, what they would have in all."""
        part, whole, source = current_part(), list(shape), self.generator
        if part is not None:
            whole[part.axis] = part.batch
        drawn = torch.rand(whole, dtype=dtype, device=source.device, generator=source)
        return drawn if part is None else drawn.narrow(part.axis, part.first, shape[part.axis])
