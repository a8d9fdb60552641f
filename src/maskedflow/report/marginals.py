"""Each column on its own: data beside samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from .embed import Picture, embed
from .figures import DATA_COLOUR, SAMPLE_COLOUR, new_figure
from .subject import Column, Rows, Subject

__all__ = ["Marginal", "marginal_facts", "marginal_pictures", "strays"]

SHARES = (0.05, 0.5, 0.95)

PICTURES, LEVELS = 12, 20
"""The most columns that are drawn, and the most categories in a picture."""


@dataclass(frozen=True)
class Marginal:
    """A column of data and of samples.

    Args:
        index: Which column.
        name: Its name.
        distance: The largest difference of the two distribution functions; of a category half the
            sum of all differences of shares, the total variation.
        data: The 5% quantile, the median and the 95% quantile of the data; None of a category.
        samples: Likewise of the samples.
        missing: The shares of missing cells.
    """

    index: int
    name: str
    distance: float
    data: list[float] | None
    samples: list[float] | None
    missing: tuple[float, float]


def marginal_facts(subject: Subject, data: Rows, samples: Rows) -> list[Marginal]:
    """Compares each column, those furthest from the data first.

    Example:
        >>> one = Subject("one", (Column("a"),), lambda x: x[:, 0], lambda n, g: np.zeros((n, 1)))
        >>> marginal_facts(one, np.array([[0.0], [1.0]]), np.array([[0.0], [0.0]]))[0].distance
        0.5
    """
    found = []
    for i, column in enumerate(subject.columns):
        ours, drawn = _present(data[:, i]), _present(samples[:, i])
        missing = (1 - len(ours) / len(data), 1 - len(drawn) / len(samples))
        if column.levels:
            apart = np.abs(_shares(ours, column) - _shares(drawn, column)).sum() / 2
            found.append(Marginal(i, column.name, float(apart), None, None, missing))
            continue
        if not len(ours) or not len(drawn):
            continue
        distance = float(ks_2samp(ours, drawn).statistic)
        before, after = (np.quantile(x, SHARES).tolist() for x in (ours, drawn))
        found.append(Marginal(i, column.name, distance, before, after, missing))
    return sorted(found, key=lambda one: -one.distance)


def strays(subject: Subject, data: Rows, samples: Rows) -> int:
    """How many samples are further outside of a column's range in the data than it is wide.

    What is no number counts too, where the data miss none.

    Example:
        >>> one = Subject("one", (Column("a"),), lambda x: x[:, 0], lambda n, g: np.zeros((n, 1)))
        >>> strays(one, np.array([[0.0], [1.0]]), np.array([[-0.5], [1.9], [2.1], [np.nan]]))
        2
    """
    ours, drawn = (np.asarray(rows[:, subject.numeric], np.float64) for rows in (data, samples))
    gaps = np.isnan(ours)
    some = ~gaps.all(0)
    ours, drawn, gaps = ours[:, some], drawn[:, some], gaps[:, some]
    low, high = np.nanmin(ours, 0), np.nanmax(ours, 0)
    width = high - low
    far = (drawn < low - width) | (drawn > high + width)
    lost = np.isnan(drawn) & ~gaps.any(0)
    return int((far | lost).any(1).sum())


def marginal_pictures(
    subject: Subject, facts: list[Marginal], data: Rows, samples: Rows
) -> list[Picture]:
    """Histograms of the first columns of `facts`, in the order of the table."""
    found = []
    for fact in sorted(facts[:PICTURES], key=lambda one: one.index):
        column = subject.columns[fact.index]
        figure = new_figure(2.4, 1.8)
        axes = figure.subplots()
        ours, drawn = _present(data[:, fact.index]), _present(samples[:, fact.index])
        if column.levels:
            _bars(axes, column, ours, drawn)
        else:
            _histograms(axes, ours, drawn)
        axes.set_title(column.name, fontsize=9)
        axes.set_yticks([])
        axes.tick_params(labelsize=8)
        if not column.levels:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        what = "total variation" if column.levels else "KS distance"
        alt = f"{column.name}: data beside samples, {what} {fact.distance:.3f}"
        found.append(embed(figure, alt))
    return found


def _histograms(axes: Axes, data: NDArray[np.float64], samples: NDArray[np.float64]) -> None:
    low, high = np.quantile(data, [0.002, 0.998])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 31)
    for values, colour in ((data, DATA_COLOUR), (samples, SAMPLE_COLOUR)):
        # The share of all values, those outside of the limits too.
        density = np.histogram(values, edges)[0] / len(values)
        filled = colour == DATA_COLOUR
        width = None if filled else 1.4
        axes.stairs(
            density, edges, color=colour, fill=filled, alpha=0.45 if filled else 1, lw=width
        )
    axes.set_xlim(low, high)


def _bars(
    axes: Axes, column: Column, data: NDArray[np.float64], samples: NDArray[np.float64]
) -> None:
    shares = _shares(data, column), _shares(samples, column)
    shown = np.argsort(-shares[0], kind="stable")[:LEVELS]
    places = np.arange(len(shown))
    for offset, share, colour in ((-0.2, shares[0], DATA_COLOUR), (0.2, shares[1], SAMPLE_COLOUR)):
        axes.bar(places + offset, share[shown], 0.4, color=colour)
    names = [column.levels[i] for i in shown]
    turned = sum(map(len, names)) > 24
    axes.set_xticks(places, [f"{n[:11]}…" if len(n) > 12 else n for n in names])
    axes.tick_params(axis="x", rotation=90 if turned else 0)


def _present(cells: Rows) -> NDArray[np.float64]:
    values = np.asarray(cells, np.float64)
    found: NDArray[np.float64] = values[~np.isnan(values)]
    return found


def _shares(codes: NDArray[np.float64], column: Column) -> NDArray[np.float64]:
    counts = np.bincount(codes.astype(int), minlength=len(column.levels))
    found: NDArray[np.float64] = counts / max(len(codes), 1)
    return found
