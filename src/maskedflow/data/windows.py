"""A time series, cut into windows."""

from __future__ import annotations

from torch import Tensor

from .split import Split

STEPS = 8
"""The steps of a time series that are known again together: one alone may be there by chance."""


def windows(x: Tensor, length: int, stride: int = 1) -> Tensor:
    """Cuts a series into windows, without a copy; the last one ends with the last step.

    The series has shape `(n, features)`, its windows shape `(windows, length, features)`; `stride`
    are the steps from a window's start to the next one's.

    Raises:
        ValueError: If the series is shorter than a window.

    Example:
        >>> import torch
        >>> windows(torch.arange(6)[:, None], length=3, stride=2)[..., 0]
        tensor([[1, 2, 3],
                [3, 4, 5]])
    """
    if not 1 <= length <= len(x):
        raise ValueError(f"length: expected 1 to {len(x)} steps, got {length}")
    return x[(len(x) - length) % stride :].unfold(0, length, stride).transpose(1, 2)


def cut(split: Split, window: int, stride: int) -> Split:
    """The windows of a series, with the covariates of their steps."""
    x, c = split.x, split.context
    return Split(windows(x, window, stride), None if c is None else windows(c, window, stride))


def stretches(split: Split) -> Split:
    """All stretches of a few steps, a row each."""
    return Split(windows(split.x, min(STEPS, len(split))).flatten(1))
