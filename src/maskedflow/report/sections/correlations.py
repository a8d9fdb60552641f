"""Correlations: how those of samples differ from those of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from maskedflow.plot.ticks import signed
from maskedflow.report.format import interval, no_difference
from maskedflow.report.plots.figures import Picture
from maskedflow.report.plots.matrices import Cells, matrix_shown
from maskedflow.report.section import Evidence, Rows, Section, Subject

COMMON, RARE = 4, 0.01
"""The most categories of a column that are looked at, and the share of gaps that is ignored."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation(Section):
    """How the rank correlations of samples differ from those of data."""

    id, title, place = "correlations", "Correlations", 60
    largest: float  # the absolute difference that is largest beside its error
    pair: tuple[str, str]
    data: float
    samples: float
    by_chance: float  # two standard errors of a difference where there is no correlation
    pairs: int
    beyond: int  # pairs that differ by more than two standard errors
    rows: tuple[int, int]  # of data and of samples
    matrices: Sequence[Cells | Picture] = ()

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        """Compares them; None of images, and without two columns that have any.

        Beside numbers and ordered categories that is whether a cell is one of the common categories
        of its column, and whether it is missing.
        """
        if evidence.subject.image is not None:
            return None
        named = _correlated(evidence.subject, evidence.data, evidence.samples)
        if len(named) < 2 or min(len(evidence.data), len(evidence.samples)) < 3:
            return None
        names, parts = list(named), [np.stack(x, 1) for x in zip(*named.values(), strict=True)]
        before, after = map(correlations, parts)
        difference = after - before
        # Of few rows a correlation is chance.
        pairs = [(~np.isnan(x)).T.astype(np.float64) @ ~np.isnan(x) for x in parts]
        error = 2 * np.sqrt(sum(1 / np.maximum(n, 1) for n in pairs))
        apart = np.abs(difference) / error
        i, j = (int(k) for k in np.unravel_index(apart.argmax(), apart.shape))
        return cls(
            largest=float(np.abs(difference[i, j])),
            pair=(names[i], names[j]),
            data=float(before[i, j]),
            samples=float(after[i, j]),
            by_chance=float(error[i, j]),
            pairs=len(names) * (len(names) - 1) // 2,
            beyond=int((np.triu(apart, 1) > 1).sum()),
            rows=(len(evidence.data), len(evidence.samples)),
            matrices=[
                matrix_shown(before, names, "Rank correlations of the data."),
                matrix_shown(difference, names, "Those of the samples less those of the data."),
            ]
            if len(names) > 2
            else [],
        )

    @property
    def finding(self) -> str:
        """Whether the correlations differ, by a normal test of all pairs."""
        error = self.by_chance / 2 * norm.isf(0.025 / self.pairs)
        apart = self.samples - self.data
        if self.largest > error:
            ends = interval(apart - error, apart + error)
            return (
                f"Samples differ from data in the correlation of {self.pair[0]} and"
                f" {self.pair[1]}, by {signed(f'{apart:.2f}')} ({ends})."
            )
        return no_difference(f"{self.rows[0]:,} rows", 2 * error, 2.0, what="of correlation")


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
    ranks = rankdata(values, axis=0, nan_policy="omit")
    ranks = np.where(here, ranks - (here.sum(0) + 1) / 2, 0)  # less their mean
    there = here.astype(np.float64)
    n = (there.T @ there).clip(1)
    mean = ranks.T @ there / n  # of each column over the rows that have the other one, too
    square = ((ranks**2).T @ there / n - mean**2).clip(0)
    scale = np.sqrt(square * square.T)
    covariance = ranks.T @ ranks / n - mean * mean.T
    found: Matrix = np.clip(covariance / np.where(scale > 1e-9, scale, np.inf), -1, 1)
    np.fill_diagonal(found, 1)
    return found


def _correlated(subject: Subject, *parts: Rows) -> dict[str, list[Rows]]:
    """What can correlate, by name: of each part of the rows a column of numbers.

    The first part tells which categories are common, and whether cells are missing.
    """
    found: dict[str, list[Rows]] = {}
    for i, column in enumerate(subject.columns):
        cells = [np.asarray(rows[:, i], np.float64) for rows in parts]
        gaps = [np.isnan(x) for x in cells]
        if gaps[0].all():
            continue
        if len(column.levels) > 2 and not column.ordered:
            counts = np.bincount(cells[0][~gaps[0]].astype(int), minlength=len(column.levels))
            for level in np.sort(np.argsort(-counts, kind="stable")[:COMMON]).tolist():
                found[f"{column.name} = {column.levels[level]}"] = [
                    np.where(gap, np.nan, x == level) for x, gap in zip(cells, gaps, strict=True)
                ]
        else:
            found[column.name] = cells
        if gaps[0].mean() > RARE:
            found[f"{column.name} missing"] = [gap.astype(np.float64) for gap in gaps]
    return found
