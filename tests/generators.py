"""Where draws come from."""

from __future__ import annotations

import torch


def generator(seed: int = 0) -> torch.Generator:
    """A generator of a seed."""
    return torch.Generator().manual_seed(seed)
