"""The most and the least likely test rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from maskedflow.report.format import percent, shares
from maskedflow.report.plots.figures import Picture
from maskedflow.report.section import Evidence, Section

from .samples import image_picture

ROWS, CELLS, IMAGES = 5, 16, 16
"""Rows in a table, its columns, and images in a grid."""

SCORED = 2_000
"""The most samples that say how rare a row is: scoring may take long."""

UNLIKELY = 0.01
"""The share of samples that are less likely than those rows of which the page tells how many."""


@dataclass(frozen=True)
class Extreme:
    """A test row that is likely, or unlikely."""

    log_prob: float
    tail: float  # the share of samples that are less likely
    cells: list[str]


@dataclass(frozen=True)
class Extremes(Section):
    """The most and the least likely test rows."""

    id, title, place = "extremes", "Extremes", 90
    pictures: Sequence[Picture] = ()  # of images, both; all else is of tables
    columns: Sequence[str] = ()  # those that are shown, of a total
    total: int = 0
    mixed: bool = False  # that cells are missing or at atoms: densities have different units
    unlikely: float = 0.0  # the share of test rows that are less likely than 99% of samples
    most: Sequence[Extreme] = ()
    least: Sequence[Extreme] = ()
    rows: tuple[float, int] = (0, 0)  # what test rows are worth, and samples

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        """Finds them, and by samples how rare they are."""
        subject, test, samples = evidence.subject, evidence.test, evidence.samples
        log_prob = evidence.log_prob
        order = np.argsort(log_prob)
        if subject.image is not None:
            x, image = test[:, : subject.features], subject.image
            likely = image_picture(image, x[order[::-1][:IMAGES]], "most likely test images")
            unlikely = image_picture(image, x[order[:IMAGES]], "least likely test images")
            return cls([likely, unlikely])
        scores = subject.log_prob(samples[:SCORED])
        drawn = np.sort(np.nan_to_num(scores, nan=-np.inf, neginf=-np.inf))
        tail = np.searchsorted(drawn, log_prob) / len(drawn)
        shown = subject.columns[:CELLS]

        def extremes(places: NDArray[np.int64]) -> list[Extreme]:
            found = []
            for i in places:
                cells = [one.text(cell) for one, cell in zip(shown, test[i].tolist(), strict=False)]
                found.append(Extreme(float(log_prob[i]), float(tail[i]), cells))
            return found

        return cls(
            columns=[column.name for column in shown],
            total=len(subject.columns),
            mixed=any(column.atoms for column in subject.columns)
            or any(np.isnan(rows).any() for rows in (test, samples)),
            unlikely=float(np.average(tail < UNLIKELY, weights=evidence.weight)),
            most=extremes(order[::-1][:ROWS]),
            least=extremes(order[:ROWS]),
            rows=(len(evidence.places), len(drawn)),
        )

    @property
    def finding(self) -> str:
        """Whether test rows are as unlikely as samples, within two standard errors."""
        if not self.least:
            return ""
        share, (n, m) = self.unlikely, self.rows
        drawn = UNLIKELY * (1 - UNLIKELY) / m
        chance = 2 * math.sqrt(UNLIKELY * (1 - UNLIKELY) / n + drawn)
        if abs(share - UNLIKELY) > chance:
            error = 2 * math.sqrt(share * (1 - share) / n + drawn)
            word = "More" if share > UNLIKELY else "Fewer"
            ends = shares(share - error, share + error)
            return (
                f"{word} test rows are unlikely than should be: {percent(share)} ({ends}), not 1%."
            )
        size = f"{100 * (UNLIKELY + 2 * chance):.2g}%"
        return f"As many test rows are unlikely as should be: {n:,} rows would have shown {size}."
