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
        """Draws from [0, 1), for rows that are the first axis of a shape.

        Those of a part of a batch are what they would be in the whole.
        """
        part = current_part()
        rows = shape[0] if part is None else part.batch
        shape, count = (rows, *shape[1:]), shape[0]
        source = self.generator
        drawn = torch.rand(shape, dtype=dtype, device=source.device, generator=source)
        return drawn if part is None else drawn[part.first : part.first + count]
