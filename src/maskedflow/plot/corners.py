"""The corner plot of anything that can be sampled, beside data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike, NDArray

from .figures import DATA_COLOUR, SAMPLE_COLOUR, legend, mark, mark_key, shown_figure
from .rows import beside, limits_around, truth_of
from .samples import samples_of
from .triangle import Layer, fill, pairs_of, side, triangle

MOST = 16
"""The most columns that one can still read."""


def corner(
    thing: Any,
    *,
    data: Any = None,
    truth: ArrayLike | Mapping[str, float] | None = None,
    columns: Sequence[str | int] | None = None,
    names: Sequence[str] | None = None,
    context: Any = None,
    x: Any = None,
    weights: ArrayLike | None = None,
    data_weights: ArrayLike | None = None,
    n: int = 10_000,
    seed: int = 0,
    fig: Figure | SubFigure | None = None,
) -> NDArray[np.object_]:
    """Draws a corner plot: each column alone, and contours of each pair of columns.

    Contours hold 39% and 86% of the rows, as one and two standard deviations of a Gaussian of the
    plane do. Samples of `thing` are orange, `data` blue, filled and with points outside of the
    contours. Of frames, estimators and runs only the columns of numbers are drawn, and rows that
    have all of these.

    Args:
        thing: A flow, a distribution, a posterior, a density estimator, a run, or samples: an
            array, a tensor or a frame of shape (n, D).
        data: Rows to draw behind it, of the same columns.
        truth: One number a column, or a mapping from names to numbers; drawn as lines.
        columns: Which columns are drawn, by name or place; all if None.
        names: What the axes are called, instead of the columns' own names.
        context: The context of a flow, or one row of that of an estimator or a run.
        x: The observation of a posterior.
        weights: How much each of the samples counts, shape (n,), if `thing` is samples. Those in
            the index of a frame, where samplers keep them, need not be given.
        data_weights: How much each row of `data` counts.
        n: How many samples are drawn.
        seed: Seed of these; torch's own state is left alone.
        fig: Where to draw: a figure or a part of one. If None, a new figure of `pyplot`.

    Returns:
        Axes of shape (D, D), None above the diagonal.

    Raises:
        ValueError: If columns, truth, data or weights do not fit together.
        TypeError: If `thing` is nothing that can be drawn.

    Example:
        >>> import maskedflow as mf
        >>> from maskedflow.plot.figures import new_figure
        >>> figure = new_figure(4, 4)
        >>> axes = corner(mf.flows.MAF(2), truth=[0.0, 1.0], names=["a", "b"], n=500, fig=figure)
        >>> axes.shape, axes[1, 0].get_xlabel(), axes[0, 1]
        ((2, 2), 'a', None)
    """
    drawn = samples_of(thing, n, seed, context=context, x=x, weights=weights)
    shown = drawn.chosen(columns)
    size = len(shown.names)
    if not 1 <= size <= MOST:
        raise ValueError(f"columns: expected 1 to {MOST} of the {len(drawn.names)}, got {size}")
    if names is not None and len(names) != size:
        raise ValueError(f"names: expected {size}, one for each column, got {len(names)}")
    tables = [shown.complete("thing")]
    if data is not None:
        tables.insert(0, beside(drawn, data, data_weights).chosen(columns).complete("data"))
    marks = None if truth is None else truth_of(truth, shown.names, drawn.names)
    limits = limits_around(tables, marks)
    colours = [DATA_COLOUR, SAMPLE_COLOUR][-len(tables) :]
    layers = [
        Layer(one.rows, colour, filled=one is tables[0], weights=one.weights)
        for one, colour in zip(tables, colours, strict=True)
    ]
    figure = shown_figure(side(size), side(size)) if fig is None else fig
    panels = triangle(figure, shown.names if names is None else names, limits)
    fill(panels, limits, layers, points=data is not None)
    labels = ["data", "samples"][-len(layers) :]
    keys = {label: layer.key for label, layer in zip(labels, layers, strict=True)}
    if marks is not None:
        for row, column in pairs_of(size):
            mark(panels[row, column], marks[column], marks[row] if row > column else np.nan)
        keys["truth"] = mark_key(size)
    legend(figure, keys, "upper right" if size > 1 else "outside upper right")
    return panels
