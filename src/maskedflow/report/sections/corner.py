"""The corner plot: contours of samples over those of data, for each pair of columns."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from maskedflow.report.format import clipped, percent
from maskedflow.report.plots.figures import (
    DATA_COLOUR,
    SAMPLE_COLOUR,
    Picture,
    embed,
    limits_of,
    name_ticks,
)
from maskedflow.report.section import Rows, Subject

from .correlations import correlations

COLUMNS, FEWEST = 8, 20
"""The most columns, and the fewest rows for contours."""

COMPLETE = 0.5
"""The least share of rows with numbers, none at an atom, in all columns."""

LEVELS = (0.393, 0.864)
"""What is inside of one and two standard deviations of a Gaussian of the plane."""

Matrix = NDArray[np.float64]


def corner_columns(subject: Subject, data: Rows) -> list[int]:
    """The columns of a corner plot: all numbers, or those with the largest correlations.

    Columns with gaps or atoms are left out where they leave less than half of the rows complete.
    """
    data = _without_atoms(subject, data)
    numeric = [i for i in subject.numeric if not np.isnan(data[:, i]).all()]
    strength = np.abs(correlations(data[:, numeric]))
    np.fill_diagonal(strength, 0)
    order = np.argsort(-strength.max(1, initial=0), kind="stable")
    whole = np.ones(len(data), np.bool_)
    chosen: list[int] = []
    for i in (numeric[k] for k in order):
        here = whole & ~np.isnan(data[:, i])
        if len(chosen) < COLUMNS and here.sum() >= COMPLETE * len(data):
            whole = here
            chosen.append(i)
    return sorted(chosen)


def corner_picture(
    subject: Subject, columns: list[int], data: Rows, samples: Rows
) -> Picture | None:
    """Draws contours of samples (orange) over those of data (filled), for each pair of columns.

    None if there are too few complete rows for contours.
    """
    from corner import corner  # imports pyplot, which most of this library does without

    size = len(columns)
    side = max(4.0, 1.25 * size + 0.5)
    figure = Figure(figsize=(side, side))  # corner lays it out by itself
    shown = [subject.columns[i] for i in columns]
    names = [column.name for column in shown]
    steps = np.array([column.step for column in shown])
    rng = np.random.default_rng(0)
    ours, drawn = (_without_atoms(subject, rows)[:, columns] for rows in (data, samples))
    ours, drawn = (rows[~np.isnan(rows).any(1)] for rows in (ours, drawn))
    if min(len(ours), len(drawn)) < FEWEST:
        return None
    # Spread over their cells, numbers on a grid make no comb.
    ours, drawn = (rows + steps * (rng.random(rows.shape) - 0.5) for rows in (ours, drawn))
    share = len(ours) / len(data)
    limits = [limits_of(column, 0.002) for column in ours.T]
    ours, drawn = (_inside(rows, np.array(limits)) for rows in (ours, drawn))
    common: dict[str, Any] = {
        "fig": figure,
        "range": limits,
        "labels": [clipped(name, 16) for name in names],
        "label_kwargs": {"fontsize": 9},
        "bins": int(np.clip(np.sqrt(min(len(ours), len(drawn))), 12, 30)),
        "smooth": 1.0,
        "levels": LEVELS,
        "plot_datapoints": False,
        "plot_density": False,
        "max_n_ticks": 3,
        # Dates, at an angle, are longer than numbers.
        "labelpad": 0.12 if any(column.date for column in shown) else 0.04,
    }
    shades = [to_rgba(DATA_COLOUR, alpha) for alpha in (0.0, 0.25, 0.5)]
    # It complains of contours that it cannot draw, which one can see.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        corner(
            ours,
            color=DATA_COLOUR,
            fill_contours=True,
            hist_kwargs={"density": True, "histtype": "stepfilled", "color": shades[-1]},
            contour_kwargs={"linewidths": 0},
            contourf_kwargs={"colors": shades},
            **common,
        )
        corner(
            drawn,
            color=SAMPLE_COLOUR,
            no_fill_contours=True,
            hist_kwargs={"density": True, "color": SAMPLE_COLOUR, "lw": 1.3},
            contour_kwargs={"linewidths": 1.3, "colors": SAMPLE_COLOUR},
            **common,
        )
    finally:
        logging.disable(before)
    panels = np.array(figure.axes[: size**2], dtype=object).reshape(size, size)
    for axes in panels.flat:
        axes.tick_params(labelsize=7)
    for i, column in enumerate(shown):
        if column.date is not None:
            name_ticks(panels[-1, i].xaxis, column)
            if i:
                name_ticks(panels[i, 0].yaxis, column)
    keys = [Patch(color=shades[-1], linewidth=0), Line2D([], [], color=SAMPLE_COLOUR)]
    figure.legend(keys, ["data", "samples"], loc="upper right", frameon=False, fontsize=10)
    alt = f"Corner plot of {', '.join(names)}: contours of samples over those of data"
    caption = (
        "Contours hold 39% and 86% of the rows, as one and two standard deviations of a Gaussian."
    )
    if share < 1:
        caption += (
            f" Of the rows {percent(share)} have numbers, none at an atom, in all of these columns."
        )
    return embed(figure, alt, caption, dpi=160)


def _without_atoms(subject: Subject, rows: Rows) -> Matrix:
    """Rows whose cells at an atom are gaps."""
    found = np.array(rows, np.float64)
    for i, column in enumerate(subject.columns):
        if column.atoms:
            found[column.at_atoms(found[:, i]), i] = np.nan
    return found


def _inside(rows: Matrix, limits: Matrix) -> Matrix:
    """The rows within limits; if there are too few, as corner would fail, all at their edges."""
    edge = 1e-6 * np.ptp(limits, axis=1)
    low, high = limits[:, 0] + edge, limits[:, 1] - edge
    kept = rows[((rows > low) & (rows < high)).all(1)]
    found: Matrix = kept if len(kept) >= FEWEST else rows.clip(low, high)
    return found
