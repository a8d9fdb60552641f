"""Points of clusters whose means and covariances are known."""

from __future__ import annotations

import torch
from torch import Tensor

from generators import generator


def clusters(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Points of three unequal, well separated, correlated clusters."""
    means = torch.tensor([[-8.0, 0.0], [8.0, 3.0], [0.0, 9.0]])
    factors = torch.tensor([[[1.0, 0.0], [0.8, 0.4]], [[0.5, 0.0], [0.0, 1.5]], [[1, 0], [-1, 1]]])
    counts = torch.tensor([300, 600, 900])
    label = torch.arange(3).repeat_interleave(counts)
    noise = torch.randn(1800, 2, 1, generator=generator(seed))
    return means[label] + (factors[label] @ noise)[..., 0], means, factors @ factors.mT
