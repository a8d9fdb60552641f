"""The density of one or two numbers, exactly, by the log-density on a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from maskedflow.posteriors import NamedDensity

from .figures import (
    DATA_COLOUR,
    SAMPLE_COLOUR,
    Limits,
    legend,
    mark,
    mark_key,
    shown_figure,
)
from .grid import centres, grid
from .rows import Table, beside, limits_around, truth_of
from .samples import are_samples, drawn_of
from .triangle import Layer

SHARES = (0.99, 0.95, 0.8, 0.6, 0.4, 0.2)
"""How much of the probability the areas of a plane hold, the widest first."""

SAMPLES = 2000
"""Samples that say where the density is."""

Numbers = NDArray[np.float64]


def density(
    thing: Any,
    *,
    data: Any = None,
    truth: ArrayLike | Mapping[str, float] | None = None,
    names: Sequence[str] | None = None,
    context: Any = None,
    x: Any = None,
    data_weights: ArrayLike | None = None,
    limits: Sequence[Limits] | None = None,
    points: int | None = None,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    r"""Draws a density of one number as a curve, one of two numbers as areas.

    .. math:: p(x) = \exp \log p(x)

    on a grid, so nothing is estimated. Areas hold 20, 40, 60, 80, 95 and 99% of the probability
    within the limits. The density is orange, `data` blue.

    Args:
        thing: What has a density of one or two numbers: a flow, a distribution, a posterior, a
            density estimator or a run.
        data: Rows to draw beside it, a histogram or points.
        truth: One number a column, or a mapping from names to numbers; drawn as lines.
        names: What the axes are called, instead of the columns' own names.
        context: The context of a flow, or one row of that of an estimator or a run.
        x: The observation of a posterior.
        data_weights: How much each row of `data` counts.
        limits: (low, high) of each column. If None, where nearly all samples and data are.
        points: Points of the grid along each axis. [default: 1,000, or 200 of two numbers]
        seed: Seed of the samples that say where the density is.
        ax: Where to draw. If None, axes of a new figure of `pyplot`.

    Raises:
        ValueError: If there are more than two columns, or arguments do not fit together.
        TypeError: If `thing` has no density.

    Example:
        >>> from maskedflow.plot.figures import new_figure
        >>> axes = new_figure(4, 3).subplots()
        >>> curve = density(torch.distributions.Normal(0.0, 1.0), ax=axes).lines[0]
        >>> float(np.trapezoid(curve.get_ydata(), curve.get_xdata())) > 0.99
        True
    """
    if are_samples(thing):
        raise TypeError("thing: expected something with a log_prob; samples are for plot.corner")
    whole = NamedDensity.of(thing, context=context, x=x)
    size = whole.features
    if size > 2:
        raise ValueError(
            f"thing: expected a density of one or two numbers, got one of {size}: draw its samples"
            " by plot.corner, or a marginal"
        )
    drawn = drawn_of(whole, SAMPLES, seed)
    shown = drawn.names if names is None else tuple(names)
    if len(shown) != size:
        raise ValueError(f"names: expected {size}, one for each column, got {len(shown)}")
    seen = None if data is None else beside(drawn, data, data_weights).complete("data")
    marks = None if truth is None else truth_of(truth, drawn.names, drawn.names)
    box = limits
    if box is None:
        box = limits_around([drawn] if seen is None else [drawn, seen], marks)
    if len(box) != size or not all(low < high for low, high in box):
        raise ValueError(f"limits: expected {size} pairs (low, high), got {limits}")
    if points is not None and points < 2:
        raise ValueError(f"points: expected at least 2, got {points}")
    axes = shown_figure(4.2, 3.4).subplots() if ax is None else ax
    draw = _curve if size == 1 else _areas
    draw(axes, whole, seen, box, points)
    axes.set_xlabel(shown[0], fontsize=9)
    axes.set_ylabel("density" if size == 1 else shown[1], fontsize=9)
    axes.tick_params(labelsize=8)
    keys: dict[str, Artist] = {"density": Line2D([], [], color=SAMPLE_COLOUR)}
    if seen is not None:
        keys["data"] = Patch(color=to_rgba(DATA_COLOUR, 0.5), linewidth=0)
    if marks is not None:
        mark(axes, *marks)
        keys["truth"] = mark_key(size)
    legend(axes, keys, "best")
    return axes


def _on(whole: NamedDensity, rows: Numbers) -> Numbers:
    """The density at each row."""
    found: Numbers = whole.log_prob(torch.from_numpy(rows)).exp().numpy(force=True)
    return found


def _curve(
    axes: Axes, whole: NamedDensity, seen: Table | None, box: Sequence[Limits], points: int | None
) -> None:
    if seen is not None:
        Layer(seen.rows, DATA_COLOUR, True, seen.weights).histogram(axes, 0, box[0])
    rows = grid(box, points or 1000)
    axes.plot(rows[:, 0], _on(whole, rows), color=SAMPLE_COLOUR, lw=1.5)
    axes.set_xlim(box[0])
    axes.set_ylim(bottom=0)


def _areas(
    axes: Axes, whole: NamedDensity, seen: Table | None, box: Sequence[Limits], points: int | None
) -> None:
    side = points or 200
    density = _on(whole, grid(box, side)).reshape(side, side)
    descending = np.sort(density, axis=None)[::-1]
    mass = np.cumsum(descending) / descending.sum()
    levels = np.unique(descending[np.searchsorted(mass, SHARES).clip(max=side**2 - 1)])
    shades = [to_rgba(SAMPLE_COLOUR, alpha) for alpha in np.linspace(0.12, 0.85, len(levels))]
    if seen is not None:
        Layer(seen.rows, DATA_COLOUR, True, seen.weights).points(axes, 0, 1)
    x, y = (centres(one, side) for one in box)
    edges = [*levels, np.nextafter(max(levels[-1], descending[0]), np.inf)]
    axes.contourf(x, y, density, edges, colors=shades, zorder=0 if seen is None else -2)
    axes.set(xlim=box[0], ylim=box[1])
