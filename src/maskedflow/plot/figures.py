"""What all pictures share: colours, figures, limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

# Blue and orange stay apart for every common form of colour blindness and in grey.
DATA_COLOUR = "#2b6ca3"
SAMPLE_COLOUR = "#e8862e"
TRUTH_COLOUR = "0.15"

Limits = tuple[float, float]

WIDE = 4
"""The most panels side by side."""


def new_figure(width: float, height: float) -> Figure:
    """Makes an empty figure, sizes in inches, that needs no display and no `pyplot`.

    Example:
        >>> new_figure(4, 3).get_size_inches().tolist()
        [4.0, 3.0]
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def shown_figure(width: float, height: float) -> Figure:
    """Makes an empty figure of `pyplot`, which notebooks show and `pyplot.show` does."""
    from matplotlib import pyplot as plt

    return plt.figure(figsize=(width, height), layout="constrained")


def panels(figure: Figure | SubFigure | None, number: int) -> NDArray[np.object_]:
    """Axes in rows of up to four, shape (number,), in a figure or in a new one."""
    wide = min(number, WIDE)
    high = math.ceil(number / wide)
    if figure is None:
        figure = shown_figure(max(3.6, 2.4 * wide), 0.4 + 2.2 * high)
    cells = figure.add_gridspec(high, wide)
    axes = [figure.add_subplot(cells[i // wide, i % wide]) for i in range(number)]
    for one in axes:
        one.tick_params(labelsize=8)
    return np.array(axes, dtype=object)


def limits_of(
    values: ArrayLike,
    tail: float = 0.001,
    edge: float = 0.05,
    weights: NDArray[np.float64] | None = None,
) -> Limits:
    """The interval of all values but a tail at either end, wider by an edge at either end."""
    values, ends = np.asarray(values, np.float64), np.array([tail, 1 - tail])
    how: Any = {} if weights is None else {"weights": weights, "method": "inverted_cdf"}
    low, high = np.quantile(values, ends, **how).tolist()
    if low == high:
        low, high = low - 0.5, high + 0.5
    margin = edge * (high - low)
    return low - margin, high + margin


def bin_edges(values: NDArray[np.float64], limits: Limits, most: int) -> NDArray[np.float64]:
    """The edges of up to so many equal bins between limits, without combs of whole numbers.

    Example:
        >>> bin_edges(np.array([2.5, 3.0]), (0.0, 4.0), 2)
        array([0., 2., 4.])
        >>> bin_edges(np.array([2.0, 3.0]), (0.2, 3.8), 40)
        array([0.5, 1.5, 2.5, 3.5])
    """
    low, high = limits
    if (values % 1).any():
        return np.linspace(low, high, most + 1)
    return steps_between(math.ceil(low), math.floor(high), 1.0, most)


def steps_between(low: float, high: float, step: float, most: int) -> NDArray[np.float64]:
    """The edges of up to so many bins, as wide as some steps, in whose middle numbers are.

    Example:
        >>> steps_between(0, 5, 1.0, 4)
        array([-0.5,  1.5,  3.5,  5.5])
    """
    width = step * max(1, math.ceil(((high - low) / step + 1) / most))
    low, high = low - step / 2, max(low, high)
    bins = math.floor((high - low) / width) + 1
    return np.linspace(low, low + width * bins, bins + 1)


def legend(owner: Axes | Figure | SubFigure, keys: dict[str, Artist], loc: Any) -> None:
    """Names what is drawn, if that is more than one thing."""
    if len(keys) > 1:
        handles: list[Any] = list(keys.values())
        owner.legend(handles, list(keys), loc=loc, frameon=False, fontsize=9)


def mark(axes: Axes, x: float, y: float = math.nan) -> None:
    """Draws lines at true values, and a point where two of them meet; none at NaN."""
    line: dict[str, Any] = {"color": TRUTH_COLOUR, "lw": 1, "ls": "--"}
    if math.isfinite(x):
        axes.axvline(x, **line)
    if math.isfinite(y):
        axes.axhline(y, **line)
        axes.plot(x, y, "s", color=TRUTH_COLOUR, ms=4)


def mark_key(numbers: int) -> Artist:
    """What stands for true values of so many numbers in a legend."""
    marker = "s" if numbers > 1 else None
    return Line2D([], [], color=TRUTH_COLOUR, lw=1, ls="--", marker=marker, ms=4)
