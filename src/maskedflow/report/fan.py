"""Forecasts as a fan of intervals around their median."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from .figures import DATA_COLOUR, SAMPLE_COLOUR

__all__ = ["LEVELS", "fan_panel"]

LEVELS = (0.95, 0.8, 0.5)
"""How much of the samples each interval of a fan holds, the widest first."""


def fan_panel(
    axes: Axes,
    times: NDArray[Any],
    samples: NDArray[Any],
    *,
    past: tuple[NDArray[Any], NDArray[Any]] | None = None,
    truth: NDArray[Any] | None = None,
    title: str = "",
    name: str = "",
) -> None:
    """Draws the 50, 80 and 95% intervals of forecasts, their median, and what really came.

    Args:
        axes: Where to draw.
        times: When each step is, shape (steps,).
        samples: The forecasts of one feature, shape (n, steps).
        past: Times and values before the first step.
        truth: The values of the steps, shape (steps,).
        title: What is written above.
        name: The feature's name.
    """
    for level, shade in zip(LEVELS, (0.15, 0.3, 0.5), strict=True):
        low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
        label = f"{level:.0%} of forecasts"
        axes.fill_between(times, low, high, color=SAMPLE_COLOUR, alpha=shade, lw=0, label=label)
    axes.plot(times, np.median(samples, axis=0), color=SAMPLE_COLOUR, lw=1.5, label="median")
    if past is not None:
        axes.plot(*past, color=DATA_COLOUR, lw=1.2, label="data" if truth is None else None)
    if truth is not None:
        axes.plot(times, truth, color=DATA_COLOUR, lw=1.2, label="data")
    axes.set_title(title, fontsize=9)
    axes.set_ylabel(name, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.01)
