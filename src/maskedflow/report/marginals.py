"""Each column on its own: data beside samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from .embed import Picture, embed
from .figures import DATA_COLOUR, SAMPLE_COLOUR, new_figure
from .subject import Column, Rows, Subject
from .ticks import name_ticks
from .words import percent

__all__ = ["Marginal", "marginal_facts", "marginal_pictures", "strays"]

SHARES = (0.05, 0.5, 0.95)

PICTURES, LEVELS, BARS = 12, 20, 30
"""The most columns that are drawn, and the most categories and bars in a picture."""

COMMON = 3
"""The most categories that the table names."""


@dataclass(frozen=True)
class Marginal:
    """A column of data and of samples.

    Args:
        index: Which column.
        name: Its name.
        distance: The largest difference of the two distribution functions; of a category half the
            sum of all differences of shares, the total variation.
        data: The 5% quantile, the median and the 95% quantile of the data; of a category the
            shares of those that are most common in the data, in one text.
        samples: Likewise of the samples.
        missing: The shares of missing cells, in the data and in the samples.
        atoms: The shares of cells at atoms, likewise; None if there are no atoms.
    """

    index: int
    name: str
    distance: float
    data: list[str]
    samples: list[str]
    missing: tuple[float, float]
    atoms: tuple[float, float] | None = None


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
            shares = _shares(ours, column), _shares(drawn, column)
            common = np.argsort(-shares[0], kind="stable")[:COMMON]
            before, after = (
                [", ".join(f"{column.levels[k]} {percent(share[k])}" for k in common)]
                for share in shares
            )
            apart = np.abs(shares[0] - shares[1]).sum() / 2
            found.append(Marginal(i, column.name, float(apart), before, after, missing))
            continue
        if not len(ours) or not len(drawn):
            continue
        atoms = None
        if column.atoms:
            here, there = (float(column.at_atoms(x[:, i]).mean()) for x in (data, samples))
            atoms = here, there
        distance = float(ks_2samp(ours, drawn).statistic)
        quantiles = (
            # Of numbers on a grid a number that is on it.
            np.quantile(x, SHARES, method="inverted_cdf" if column.step else "linear")
            for x in (ours, drawn)
        )
        before, after = ([column.text(x) for x in values.tolist()] for values in quantiles)
        found.append(Marginal(i, column.name, distance, before, after, missing, atoms))
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
        axes.tick_params(labelsize=8)
        if column.levels:
            _bars(axes, column, ours, drawn)
        else:
            _histograms(axes, column, ours, drawn)
            name_ticks(axes.xaxis, column)
        axes.set_title(
            column.name if len(column.name) <= 30 else column.name[:29] + "…", fontsize=9
        )
        axes.set_yticks([])
        apart = _apart(column, fact)
        axes.set_xlabel("\n".join(apart), fontsize=7)
        what = "total variation" if column.levels else "KS distance"
        alt = f"{column.name}: data beside samples, {what} {fact.distance:.3f}"
        found.append(embed(figure, "; ".join([alt, *apart])))
    return found


def _apart(column: Column, fact: Marginal) -> list[str]:
    """What is in no histogram: cells that are missing, or at an atom."""
    found = []
    if fact.atoms is not None:
        where = " or ".join(column.text(atom) for atom in column.atoms[:2])
        where += " …" if len(column.atoms) > 2 else ""
        found.append(f"{percent(fact.atoms[0])} at {where} (samples {percent(fact.atoms[1])})")
    if max(fact.missing) >= 0.0005:
        found.append(f"{percent(fact.missing[0])} missing (samples {percent(fact.missing[1])})")
    return found


def _histograms(
    axes: Axes, column: Column, data: NDArray[np.float64], samples: NDArray[np.float64]
) -> None:
    plain = [x[~column.at_atoms(x)] for x in (data, samples)]
    low, high = np.quantile(plain[0], [0.002, 0.998]) if len(plain[0]) else (0.0, 0.0)
    if column.step:
        # Bars as wide as a whole number of steps, in whose middle the numbers are.
        width = column.step * max(1, math.ceil((high - low) / column.step / BARS))
        low -= 0.5 * column.step
        edges = low + width * np.arange(math.floor((high - low) / width) + 2)
    else:
        if low == high:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, BARS + 1)
    for own, values, colour in (
        (plain[0], data, DATA_COLOUR),
        (plain[1], samples, SAMPLE_COLOUR),
    ):
        # The share of all values, those outside of the limits and at atoms too.
        density = np.histogram(own, edges)[0] / max(len(values), 1)
        filled = colour == DATA_COLOUR
        axes.stairs(
            density,
            edges,
            color=colour,
            fill=filled,
            alpha=0.45 if filled else 1,
            lw=None if filled else 1.4,
        )
    axes.set_xlim(edges[0], edges[-1])


def _bars(
    axes: Axes, column: Column, data: NDArray[np.float64], samples: NDArray[np.float64]
) -> None:
    shares = _shares(data, column), _shares(samples, column)
    shown = np.argsort(-shares[0], kind="stable")[:LEVELS]
    if column.ordered:
        shown = np.sort(shown)
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
