"""Each column on its own: data beside samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from maskedflow.plot.figures import (
    DATA_COLOUR,
    SAMPLE_COLOUR,
    limits_of,
    new_figure,
    steps_between,
)
from maskedflow.plot.ticks import counted_in
from maskedflow.report.format import clipped, interval, listed, no_difference, percent
from maskedflow.report.plots.figures import Picture, embed, name_ticks
from maskedflow.report.section import Column, Evidence, Rows, Section, Subject

Vector = NDArray[np.float64]

SHARES = (0.05, 0.5, 0.95)

PICTURES, LEVELS, BARS = 12, 20, 30
"""The most columns that are drawn, and the most categories and bars in a picture."""

TAIL = 0.002
"""The share of the data outside of a histogram, at either end."""

COMMON = 3
"""The most categories that the table names."""


@dataclass(frozen=True)
class Marginal:
    """A column of data and of samples."""

    index: int
    name: str
    # Kolmogorov-Smirnov; of a category the total variation, half the sum of differences of shares.
    distance: float
    chance: float  # up to where it is by chance, of all columns together in 19 of 20 tables
    # Quantiles at 5, 50 and 95%; of a category, in one text, those most common in the data.
    data: list[str]
    samples: list[str]
    missing: tuple[float, float]  # the shares of such cells in the data and in the samples
    atoms: tuple[float, float] | None = None
    gaps: bool = False  # that these shares are further apart than by chance

    @property
    def differs(self) -> bool:
        """Whether the distance is larger than by chance."""
        return self.distance > self.chance


@dataclass(frozen=True)
class Columns(Section):
    """The columns one by one."""

    id, title, place = "columns", "Columns", 50
    marginals: list[Marginal]  # those furthest from the data first
    pictures: list[Picture]
    outliers: int  # samples further outside of a column's data than these are wide, or none there
    samples: int
    coded: bool  # that some columns hold categories
    rows: int  # of data

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        """Compares them; None of images."""
        subject, parts = evidence.subject, (evidence.data, evidence.samples)
        marginals = _marginals(subject, *parts) if subject.image is None else []
        if not marginals:
            return None
        drawn = sorted(marginals[:PICTURES], key=lambda one: one.index)  # as in the table
        return cls(
            marginals,
            [_picture(subject, one, *parts) for one in drawn],
            _outliers(subject, *parts) if subject.numeric else 0,
            samples=len(evidence.samples),
            coded=len(subject.numeric) < len(subject.columns),
            rows=len(evidence.data),
        )

    @property
    def finding(self) -> str:
        """Which columns differ, and the largest distance."""
        apart = [one for one in self.marginals if one.differs]
        gaps = [one.name for one in self.marginals if one.gaps]
        found = []
        if apart:
            most = apart[0]
            ends = interval(max(most.distance - most.chance, 0.0), most.distance + most.chance)
            which = f", most in {most.name}" if len(apart) > 1 else ""
            names = listed([one.name for one in apart])
            apart_by = f"by a distance of {most.distance:.2f} ({ends})"
            found.append(f"Samples differ from data in {names}{which}, {apart_by}.")
        if gaps:
            found.append(f"Shares of missing cells differ in {listed(gaps)}.")
        size = 2 * max(one.chance for one in self.marginals)
        return " ".join(found) or no_difference(f"{self.rows:,} rows", size, 1.0)

    @property
    def missing(self) -> bool:
        """Whether cells are missing."""
        return any(any(one.missing) for one in self.marginals)

    @property
    def atoms(self) -> bool:
        """Whether a column has atoms."""
        return any(one.atoms for one in self.marginals)


def _marginals(subject: Subject, data: Rows, samples: Rows) -> list[Marginal]:
    """Compares each column, those furthest from the data first."""
    found = []
    gapped = np.isnan(np.asarray(data, np.float64)).any(0).sum()
    tests = len(subject.columns) + int(gapped)
    for i, column in enumerate(subject.columns):
        ours, drawn = _present(data[:, i]), _present(samples[:, i])
        missing = (1 - len(ours) / len(data), 1 - len(drawn) / len(samples))
        gaps = abs(missing[0] - missing[1]) > by_chance(len(data), len(samples), tests)
        chance = by_chance(len(ours), len(drawn), tests, len(column.levels))
        if column.levels:
            shares = _shares(ours, column), _shares(drawn, column)
            common = np.argsort(-shares[0], kind="stable")[:COMMON]
            before, after = (
                [", ".join(f"{column.levels[k]} {percent(share[k])}" for k in common)]
                for share in shares
            )
            apart = np.abs(shares[0] - shares[1]).sum() / 2
            told = (float(apart), chance, before, after, missing)
            found.append(Marginal(i, column.name, *told, gaps=gaps))
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
        told = (distance, chance, before, after, missing)
        found.append(Marginal(i, column.name, *told, atoms, gaps))
    return sorted(found, key=lambda one: -one.distance)


def by_chance(n: int, m: int, tests: int, levels: int = 0) -> float:
    r"""Up to where n and m draws of one distribution are apart in 19 of 20 times, of all tests.

    .. math:: \sqrt{\frac{1}{2} \log\frac{2 k}{0.05} \Big(\frac{1}{n} + \frac{1}{m}\Big)}
        + \frac{1}{2} \sqrt{(L - 1) \Big(\frac{1}{n} + \frac{1}{m}\Big)}

    The first is how far a Kolmogorov-Smirnov distance, or a total variation, is above its mean at
    most, in k tests; the second is at least the mean of the latter, of L levels.

    References:
        | Dvoretzky, Kiefer, Wolfowitz (1956); of two samples Wei and Dudley (2012)
        | On the method of bounded differences (McDiarmid, 1989)

    Example:
        >>> round(by_chance(2000, 2000, 1), 3), round(by_chance(2000, 2000, 1, levels=5), 3)
        (0.043, 0.075)
    """
    spread = 1 / max(n, 1) + 1 / max(m, 1)
    least = math.sqrt(max(levels - 1, 0) * spread) / 2
    return least + math.sqrt(math.log(2 * tests / 0.05) / 2 * spread)


def _outliers(subject: Subject, data: Rows, samples: Rows) -> int:
    """How many samples are far outside, or no number in a column where the data miss none."""
    ours, drawn = (np.asarray(rows[:, subject.numeric], np.float64) for rows in (data, samples))
    gaps = np.isnan(ours)
    some = ~gaps.all(0)
    ours, drawn = ours[:, some], drawn[:, some]
    low, high = np.nanmin(ours, 0), np.nanmax(ours, 0)
    width = high - low
    far = (drawn < low - width) | (drawn > high + width)
    lost = np.isnan(drawn) & ~gaps[:, some].any(0)
    return int((far | lost).any(1).sum())


def _picture(subject: Subject, fact: Marginal, data: Rows, samples: Rows) -> Picture:
    """Histograms of a column."""
    column = subject.columns[fact.index]
    figure = new_figure(2.4, 1.8)
    axes = figure.subplots()
    ours, drawn = _present(data[:, fact.index]), _present(samples[:, fact.index])
    axes.tick_params(labelsize=8)
    if column.levels:
        _bars(axes, column, ours, drawn)
    else:
        _histograms(axes, column, ours, drawn)
    power = 0 if column.levels else name_ticks(axes.xaxis, column)
    axes.set_title(counted_in(clipped(column.name, 30), power), fontsize=9)
    axes.set_yticks([])
    apart = _apart(column, fact)
    axes.set_xlabel("\n".join(apart), fontsize=7)
    what = "total variation" if column.levels else "KS distance"
    alt = f"{column.name}: data beside samples, {what} {fact.distance:.3f}"
    return embed(figure, "; ".join([alt, *apart]))


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


def _histograms(axes: Axes, column: Column, data: Vector, samples: Vector) -> None:
    plain, drawn = (x[~column.at_atoms(x)] for x in (data, samples))
    if column.step:
        # Bars as wide as a whole number of steps, in whose middle the numbers are.
        low, high = np.quantile(plain, [TAIL, 1 - TAIL]) if len(plain) else (0.0, 0.0)
        edges = steps_between(low, high, column.step, BARS)
    else:
        low, high = limits_of(plain if len(plain) else [0.0], TAIL, edge=0)
        edges = np.linspace(low, high, BARS + 1)
    # The share of all values, those outside of the limits and at atoms too.
    ours = np.histogram(plain, edges)[0] / max(len(data), 1)
    theirs = np.histogram(drawn, edges)[0] / max(len(samples), 1)
    axes.stairs(ours, edges, color=DATA_COLOUR, fill=True, alpha=0.45)
    axes.stairs(theirs, edges, color=SAMPLE_COLOUR, lw=1.4)
    axes.set_xlim(edges[0], edges[-1])


def _bars(axes: Axes, column: Column, data: Vector, samples: Vector) -> None:
    shares = _shares(data, column), _shares(samples, column)
    shown = np.argsort(-shares[0], kind="stable")[:LEVELS]
    if column.ordered:
        shown = np.sort(shown)
    places = np.arange(len(shown))
    for offset, share, colour in ((-0.2, shares[0], DATA_COLOUR), (0.2, shares[1], SAMPLE_COLOUR)):
        axes.bar(places + offset, share[shown], 0.4, color=colour)
    names = [column.levels[i] for i in shown]
    turned = sum(map(len, names)) > 24
    axes.set_xticks(places, [clipped(name, 12) for name in names])
    axes.tick_params(axis="x", rotation=90 if turned else 0)


def _present(cells: Rows) -> Vector:
    values = np.asarray(cells, np.float64)
    return values[~np.isnan(values)]


def _shares(codes: Vector, column: Column) -> Vector:
    counts = np.bincount(codes.astype(int), minlength=len(column.levels))
    shares: Vector = counts / max(len(codes), 1)
    return shares
