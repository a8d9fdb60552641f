"""Curves over time: the losses of a training, and forecasts as a fan of intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from maskedflow.plot.figures import DATA_COLOUR, SAMPLE_COLOUR
from maskedflow.plot.ticks import PlainFormatter, signed

LEVELS = (0.95, 0.8, 0.5)
"""How much of the samples each interval of a fan holds, the widest first."""


def losses(history: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]] | None:
    """The NLL of training and validation rows by epoch; None without one that is finite."""
    train, validation = (
        [math.nan if record[key] is None else record[key] for record in history]
        for key in ("train_nll", "validation_nll")
    )
    return (train, validation) if np.isfinite(validation).any() else None


def training_curve(
    axes: Axes, train: Sequence[float], validation: Sequence[float], unit: str = "row"
) -> None:
    """Draws the NLL of training and validation rows over the epochs, and marks the best epoch.

    The NLL is in nats a `unit`, one an epoch. The steep fall of the first epochs is cut off at
    the top, or it would flatten all that follows.

    Raises:
        ValueError: If the two lengths differ or are zero.
    """
    if not len(train) == len(validation) > 0:
        raise ValueError(
            "train, validation: expected as many epochs in both and at least one, found"
            f" {len(train)} and {len(validation)}"
        )
    epochs = np.arange(1, len(train) + 1)
    best = int(np.nanargmin(validation))
    marker = "o" if len(epochs) < 3 else None
    label = f"validation, best {signed(f'{validation[best]:,.3f}')}"
    axes.plot(epochs, train, color="0.6", lw=1, marker=marker, label="training")
    axes.plot(epochs, validation, color="0.1", lw=1.2, marker=marker, label=label)
    axes.plot(epochs[best], validation[best], "o", color="0.1", ms=5)
    fall = max(len(epochs) // 10, 1) if len(epochs) > 2 else 0
    settled = np.concatenate([train[fall:], validation[fall:]])
    low, high = np.nanmin(settled), np.nanmax(settled)
    margin = 0.1 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("epoch", fontsize=8)
    axes.set_ylabel(f"NLL (nats per {unit})", fontsize=8)
    axes.yaxis.set_major_formatter(PlainFormatter())
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(fontsize=8, frameon=False)


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
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(PlainFormatter())
    axes.margins(x=0.01)
    if np.asarray(times).dtype.kind == "M":
        locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    else:
        axes.xaxis.set_major_formatter(PlainFormatter())
