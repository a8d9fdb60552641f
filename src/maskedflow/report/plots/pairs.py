"""Pairwise panels of a table: each column alone on the diagonal, each pair below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike

from .figures import DATA_COLOUR, SAMPLE_COLOUR, limits_of


def pair_grid(
    figure: Figure | SubFigure,
    data: ArrayLike | None,
    samples: ArrayLike,
    names: Sequence[str],
    *,
    columns: int = 8,
) -> Axes | None:
    """Draws samples (orange) over data (blue), for each column and each pair of columns.

    An axis spans the middle 99.8 % of the data, or of the samples if there are no data, so that one
    wild sample does not squeeze all others into a corner. Of a table with more than `columns`
    columns that many are shown, evenly spaced.

    Args:
        figure: Where to draw.
        data: Rows of the table, shape (n, features), or None.
        samples: Rows drawn from the flow, shape (m, features).
        names: One name a feature.
        columns: Largest number of columns shown.

    Returns:
        Axes in the free upper right corner, for another small plot, or None without room for it.
    """
    samples = np.asarray(samples, dtype=np.float64)
    layers = [(samples, SAMPLE_COLOUR)]
    if data is not None:
        layers.insert(0, (np.asarray(data, dtype=np.float64), DATA_COLOUR))
    limits = [limits_of(column) for column in layers[0][0].T]
    shown = np.unique(np.linspace(0, len(limits) - 1, columns).round().astype(int))
    size = len(shown)
    cells = figure.add_gridspec(size, size, wspace=0.03, hspace=0.03)
    for row, i in enumerate(shown):
        for column, j in enumerate(shown[: row + 1]):
            axes = figure.add_subplot(cells[row, column])
            for rows, colour in layers:
                if i == j:
                    _histogram(axes, rows[:, i], limits[i], colour)
                else:
                    axes.scatter(
                        rows[:, j], rows[:, i], s=1.5, color=colour, alpha=0.35, linewidths=0
                    )
                    axes.set_ylim(limits[i])
            axes.set_xlim(limits[j])
            axes.tick_params(labelsize=7)
            if row < size - 1:
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel(names[j], fontsize=8)
                axes.tick_params(axis="x", rotation=45)
            if column > 0 or i == j:
                axes.tick_params(labelleft=False)
            if column == 0:
                axes.set_ylabel(names[i] if row else "", fontsize=8)
    free = size // 2
    if not free:
        return None
    # An inset, so that its labels do not push the panels apart.
    corner = figure.add_subplot(cells[:free, size - free :])
    corner.set_axis_off()
    return corner.inset_axes((0.15, 0.2, 0.85, 0.8))


def _histogram(axes: Axes, column: Any, limits: tuple[float, float], colour: str) -> None:
    bins = np.linspace(*limits, 41)
    # The share of all values, those outside the limits too, of which there may be nothing but.
    density = np.histogram(column, bins)[0] / (len(column) * (bins[1] - bins[0]))
    filled = colour == DATA_COLOUR
    axes.stairs(density, bins, color=colour, fill=filled, alpha=0.5 if filled else 1.0)
    axes.set_yticks([])
