"""Pairwise panels of a table: each column alone on the diagonal, each pair below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike

from maskedflow.plot.figures import DATA_COLOUR, SAMPLE_COLOUR, limits_of
from maskedflow.plot.triangle import Layer, pairs_of, triangle


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
    columns that many are shown, evenly spaced, and of many rows 2,000.

    Args:
        figure: Where to draw.
        data: Rows of the table, shape (n, features), or None.
        samples: Rows drawn from the flow, shape (m, features).
        names: One name a feature.
        columns: Largest number of columns shown.

    Returns:
        Axes in the free upper right corner, for another small plot, or None without room for it.
    """
    layers = [Layer(np.asarray(samples, np.float64), SAMPLE_COLOUR)]
    if data is not None:
        layers.insert(0, Layer(np.asarray(data, np.float64), DATA_COLOUR, filled=True))
    chosen = np.unique(np.linspace(0, len(names) - 1, columns).round().astype(int)).tolist()
    limits = [limits_of(layers[0].rows[:, i]) for i in chosen]
    panels = triangle(figure, [names[i] for i in chosen], limits)
    for row, column in pairs_of(len(chosen)):
        for layer in layers:
            if row == column:
                layer.histogram(panels[row, row], chosen[row], limits[row])
            else:
                layer.points(panels[row, column], chosen[column], chosen[row])
    size = len(chosen)
    free = size // 2
    if not free:
        return None
    # An inset, so that its labels do not push the panels apart.
    cells = panels[0, 0].get_gridspec()
    corner = figure.add_subplot(cells[:free, size - free :])
    corner.set_axis_off()
    return corner.inset_axes((0.15, 0.2, 0.85, 0.8))
