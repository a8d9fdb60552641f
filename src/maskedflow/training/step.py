"""A step of an optimizer, if everything is finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def step_if_finite(
    optimizer: torch.optim.Optimizer, value: Tensor, lr: float, clip: float
) -> tuple[float, bool]:
    """Clips the gradient and takes a step, if it and a value are finite; the value, and whether."""
    parameters = optimizer.param_groups[0]["params"]
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    found, length = torch.stack((value.detach(), norm)).tolist()  # the step's one wait
    finite = math.isfinite(found) and math.isfinite(length)
    if finite:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    return found, finite
