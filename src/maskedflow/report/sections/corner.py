"""The corner plot: contours of samples over those of data, for each pair of columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskedflow.plot.figures import (
    DATA_COLOUR,
    SAMPLE_COLOUR,
    legend,
    limits_of,
    new_figure,
)
from maskedflow.plot.triangle import FEWEST, Layer, fill, side, triangle
from maskedflow.report.format import clipped, percent
from maskedflow.report.plots.figures import Picture, embed, name_ticks
from maskedflow.report.section import Rows, Subject

from .correlations import correlations

COLUMNS = 8
"""The most columns."""

COMPLETE = 0.5
"""The least share of rows with numbers, none at an atom, in all columns."""

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
    limits = [limits_of(column, 0.002) for column in ours.T]
    layers = Layer(ours, DATA_COLOUR, filled=True), Layer(drawn, SAMPLE_COLOUR)
    length = side(len(columns))
    figure = new_figure(length, length)
    panels = triangle(figure, [clipped(name, 15) for name in names], limits)
    fill(panels, limits, layers, points=False)
    for i, column in enumerate(shown):
        if column.date is not None:
            name_ticks(panels[-1, i].xaxis, column, 3)
            if i:
                name_ticks(panels[i, 0].yaxis, column, 3)
    legend(figure, {"data": layers[0].key, "samples": layers[1].key}, "upper right")
    alt = f"Corner plot of {', '.join(names)}: contours of samples over those of data"
    caption = (
        "Contours hold 39% and 86% of the rows, as one and two standard deviations of a Gaussian."
    )
    if len(ours) < len(data):
        caption += (
            f" Of the rows {percent(len(ours) / len(data))} have numbers, none at an atom, in all"
            " of these columns."
        )
    return embed(figure, alt, caption, dpi=160)


def _without_atoms(subject: Subject, rows: Rows) -> Matrix:
    """Rows whose cells at an atom are gaps."""
    found = np.array(rows, np.float64)
    for i, column in enumerate(subject.columns):
        if column.atoms:
            found[column.at_atoms(found[:, i]), i] = np.nan
    return found
