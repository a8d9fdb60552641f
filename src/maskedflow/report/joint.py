"""Columns together: the corner plot, and how correlations differ."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy.stats import rankdata

from .embed import Picture, embed
from .figures import DATA_COLOUR, SAMPLE_COLOUR, new_figure
from .subject import Rows, Subject
from .ticks import name_ticks
from .words import percent

__all__ = ["Correlation", "corner_columns", "corner_picture", "correlation_facts", "correlations"]

CORNER, LABELS, FEWEST = 8, 16, 20
"""Columns in a corner plot and names beside a matrix at most, rows for contours at least."""

COMPLETE = 0.5
"""The least share of rows with numbers, none at an atom, in all columns of a corner plot."""

COMMON, RARE = 4, 0.01
"""The most categories of a column that correlations tell, and gaps that are too few for one."""

LEVELS = (0.393, 0.864)
"""What is inside of one and two standard deviations of a Gaussian of the plane."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """How the rank correlations of samples differ from those of data.

    Args:
        largest: The absolute difference that is largest beside its error.
        pair: The two columns.
        data: Their correlation in the data.
        samples: And in the samples.
        by_chance: Two standard errors of a difference where there is no correlation.
        pairs: The number of pairs.
        beyond: How many of them differ by more than two standard errors.
        picture: Correlations of the data, and the differences; None of two columns.
    """

    largest: float
    pair: tuple[str, str]
    data: float
    samples: float
    by_chance: float
    pairs: int
    beyond: int
    picture: Picture | None


def correlations(rows: Rows) -> Matrix:
    r"""The rank correlations of columns, each pair over the rows that have both; 0 of a constant.

    A cell's rank is that among all of its column. One wild row does not change them, which may well
    be among samples.

    Example:
        >>> correlations(np.array([[0.0, 0.0, 5.0], [1.0, 2.0, 5.0], [2.0, 9.0, 5.0]]))[:2].round(3)
        array([[1., 1., 0.],
               [1., 1., 0.]])
    """
    values = np.asarray(rows, np.float64)
    here = ~np.isnan(values)
    ranks = np.empty_like(values)
    for i, column in enumerate(values.T):
        ranks[:, i] = rankdata(column, nan_policy="omit")
    ranks = np.where(here, ranks - np.where(here, ranks, 0).sum(0) / here.sum(0).clip(1), 0)
    there = here.astype(np.float64)
    n = (there.T @ there).clip(1)
    mean = ranks.T @ there / n  # of each column over the rows that have the other one, too
    square = ((ranks**2).T @ there / n - mean**2).clip(0)
    scale = np.sqrt(square * square.T)
    covariance = ranks.T @ ranks / n - mean * mean.T
    found: Matrix = np.clip(covariance / np.where(scale > 1e-9, scale, np.inf), -1, 1)
    np.fill_diagonal(found, 1)
    return found


def corner_columns(subject: Subject, data: Rows) -> list[int]:
    """The columns of a corner plot: all numbers, or those with the largest correlations.

    Of columns with gaps or atoms only so many that half of the rows is complete.
    """
    data = _plain(subject, data)
    numeric = [i for i in subject.numeric if not np.isnan(data[:, i]).all()]
    strength = np.abs(correlations(data[:, numeric]))
    np.fill_diagonal(strength, 0)
    order = np.argsort(-strength.max(1, initial=0), kind="stable")
    whole = np.ones(len(data), np.bool_)
    chosen: list[int] = []
    for i in (numeric[k] for k in order):
        here = whole & ~np.isnan(data[:, i])
        if len(chosen) < CORNER and here.sum() >= COMPLETE * len(data):
            whole = here
            chosen.append(i)
    return sorted(chosen)


def corner_picture(
    subject: Subject, columns: list[int], data: Rows, samples: Rows
) -> Picture | None:
    """Contours of samples (orange) over those of data (blue, filled), for each pair of columns.

    None if there are too few complete rows for contours.
    """
    from corner import corner  # imports pyplot, which most of this library does without

    size = len(columns)
    side = max(4.0, 1.25 * size + 0.5)
    figure = Figure(figsize=(side, side))  # corner lays it out by itself
    FigureCanvasAgg(figure)
    names = [subject.columns[i].name for i in columns]
    steps = np.array([subject.columns[i].step for i in columns])
    rng = np.random.default_rng(0)
    ours, drawn = (_whole(_plain(subject, rows)[:, columns]) for rows in (data, samples))
    if min(len(ours), len(drawn)) < FEWEST:
        return None
    # Spread over their cells, numbers on a grid make no comb.
    ours, drawn = (rows + steps * (rng.random(rows.shape) - 0.5) for rows in (ours, drawn))
    share = len(ours) / len(data)
    limits = [_limits(column) for column in ours.T]
    ours, drawn = (_inside(rows, np.array(limits)) for rows in (ours, drawn))
    common: dict[str, Any] = {
        "fig": figure,
        "range": limits,
        "labels": [name if len(name) <= 16 else f"{name[:15]}…" for name in names],
        "label_kwargs": {"fontsize": 9},
        "bins": int(np.clip(np.sqrt(min(len(ours), len(drawn))), 12, 30)),
        "smooth": 1.0,
        "levels": LEVELS,
        "plot_datapoints": False,
        "plot_density": False,
        "max_n_ticks": 3,
        # Dates, at an angle, are longer than numbers.
        "labelpad": 0.12 if any(subject.columns[i].date for i in columns) else 0.04,
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
    for k, i in enumerate(columns):
        if subject.columns[i].date is not None:
            name_ticks(panels[-1, k].xaxis, subject.columns[i])
            if k:
                name_ticks(panels[k, 0].yaxis, subject.columns[i])
    keys = [Patch(color=shades[-1], linewidth=0), Line2D([], [], color=SAMPLE_COLOUR)]
    figure.legend(keys, ["data", "samples"], loc="upper right", frameon=False, fontsize=10)
    return embed(
        figure,
        f"Corner plot of {', '.join(names)}: contours of samples over those of data",
        "Contours hold 39% and 86% of the rows, as one and two standard deviations of a Gaussian."
        + (
            f" Of the rows {percent(share)} have numbers, none at an atom, in all of these columns."
            if share < 1
            else ""
        ),
        dpi=160,
    )


def correlation_facts(subject: Subject, data: Rows, samples: Rows) -> Correlation | None:
    """Compares the correlations of data and samples; None without two columns that have any.

    Beside numbers and ordered categories that is whether a cell is one of the common categories of
    its column, and whether it is missing.
    """
    names, parts = _correlated(subject, data, samples)
    if len(names) < 2 or min(len(data), len(samples)) < 3:
        return None
    before, after = map(correlations, parts)
    difference = after - before
    # Of few rows a correlation is chance.
    pairs = [(~np.isnan(x)).T.astype(np.float64) @ ~np.isnan(x) for x in parts]
    error = 2 * np.sqrt(sum(1 / np.maximum(n, 1) for n in pairs))
    apart = np.abs(difference) / error
    i, j = np.unravel_index(apart.argmax(), apart.shape)
    largest = float(np.abs(difference[i, j]))
    pair = names[int(i)], names[int(j)]
    picture = _matrices(before, difference, names, largest, pair) if len(names) > 2 else None
    return Correlation(
        largest,
        pair,
        data=float(before[i, j]),
        samples=float(after[i, j]),
        by_chance=float(error[i, j]),
        pairs=len(names) * (len(names) - 1) // 2,
        beyond=int((np.triu(apart, 1) > 1).sum()),
        picture=picture,
    )


def _correlated(subject: Subject, *parts: Rows) -> tuple[list[str], list[Matrix]]:
    """What can correlate: names, and for each part of the rows a matrix of numbers.

    The first part tells which categories are common, and whether cells are missing.
    """
    names: list[str] = []
    found: list[list[Rows]] = []

    def add(name: str, columns: list[Rows]) -> None:
        names.append(name)
        found.append(columns)

    for i, column in enumerate(subject.columns):
        cells = [np.asarray(rows[:, i], np.float64) for rows in parts]
        gaps = [np.isnan(x) for x in cells]
        if gaps[0].all():
            continue
        if len(column.levels) > 2 and not column.ordered:
            counts = np.bincount(cells[0][~gaps[0]].astype(int), minlength=len(column.levels))
            for level in np.sort(np.argsort(-counts, kind="stable")[:COMMON]).tolist():
                name = f"{column.name} = {column.levels[level]}"
                add(
                    name,
                    [np.where(g, np.nan, x == level) for x, g in zip(cells, gaps, strict=True)],
                )
        else:
            add(column.name, cells)
        if gaps[0].mean() > RARE:
            add(f"{column.name} missing", [g.astype(np.float64) for g in gaps])
    return names, [np.stack(columns, 1) for columns in zip(*found, strict=True)]


def _matrices(
    before: Matrix, difference: Matrix, names: list[str], largest: float, pair: tuple[str, str]
) -> Picture:
    figure = new_figure(8.4, 3.7)
    for axes, values, title in zip(
        figure.subplots(1, 2),
        (before, difference),
        ("correlations of the data", "samples less data"),
        strict=True,
    ):
        bound = 1.0 if values is before else max(0.05, float(np.abs(difference).max()))
        image = axes.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
        figure.colorbar(image, ax=axes).ax.tick_params(labelsize=8)
        axes.set_title(title, fontsize=10)
        few = len(names) <= LABELS
        short = [n if len(n) <= 16 else f"{n[:15]}…" for n in names] if few else []
        axes.set_xticks(range(len(short)), short, rotation=90, fontsize=8)
        axes.set_yticks(range(len(short)), short, fontsize=8)
    return embed(
        figure,
        "Rank correlation matrix of the data, and how much larger correlations of samples are;"
        f" the largest difference is {largest:.3f}, of {pair[0]} and {pair[1]}",
    )


def _plain(subject: Subject, rows: Rows) -> Matrix:
    """Rows whose cells at an atom are gaps."""
    found = np.array(rows, np.float64)
    for i, column in enumerate(subject.columns):
        if column.atoms:
            found[column.at_atoms(found[:, i]), i] = np.nan
    return found


def _whole(rows: Rows) -> Matrix:
    values = np.asarray(rows, np.float64)
    found: Matrix = values[~np.isnan(values).any(1)]
    return found


def _inside(rows: Matrix, limits: Matrix) -> Matrix:
    """The rows within limits; if there are too few, as corner would fail, all at their edges."""
    edge = 1e-6 * np.ptp(limits, axis=1)
    low, high = limits[:, 0] + edge, limits[:, 1] - edge
    kept = rows[((rows > low) & (rows < high)).all(1)]
    found: Matrix = kept if len(kept) >= FEWEST else rows.clip(low, high)
    return found


def _limits(column: Matrix) -> tuple[float, float]:
    low, high = np.quantile(column, [0.002, 0.998]).tolist()
    if low == high:
        low, high = low - 0.5, high + 0.5
    edge = 0.05 * (high - low)
    return low - edge, high + edge
