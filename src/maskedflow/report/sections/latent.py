"""The model's own random numbers: are they normal and independent?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import binom, kstest, norm

from maskedflow.plot.figures import DATA_COLOUR, new_figure
from maskedflow.report.format import interval, no_difference
from maskedflow.report.plots.figures import Picture, embed
from maskedflow.report.plots.matrices import Cells, matrix_shown
from maskedflow.report.section import Evidence, Section

BINS, LINES, WORST = 20, 100, 8
"""Bars of a histogram, the most lines of quantiles, and rows of the table."""

FAR = 8.0
"""Where numbers are moved to that are further away, their PIT being 0 or 1."""

FEWEST = 20
"""The fewest rows with both of two numbers for a correlation of them."""


@dataclass(frozen=True)
class Latent(Section):
    """What the random numbers behind test rows look like.

    References:
        | Masked Autoregressive Flow (Papamakarios et al., 2017), section 3.1 and figure 1
        | https://arxiv.org/abs/1705.07057
    """

    id, title, place = "numbers", "Random numbers", 70
    rows: int
    numbers: int  # behind each row
    residuals: bool  # that each of them belongs to a column
    far: int  # those further from normal than one in twenty would be by chance
    critical: float  # the KS distance from which on they are, of a number that is behind all rows
    correlation: float  # the largest absolute one of two numbers; nan if there is only one
    by_chance: float  # what it would be, about, of as many independent numbers
    pair: tuple[str, str]  # of which two it is
    sure: tuple[float, float]  # what a distance, and atanh of a correlation, are at most by chance
    worst: list[tuple[str, float, float, float]]  # name, mean, standard deviation, KS distance
    pictures: list[Picture]
    matrices: Sequence[Cells | Picture] = ()
    unit: str = "row"

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        r"""Looks at :math:`z = f(x)` of test rows; None if there are fewer than two of each."""
        if evidence.subject.latent is None:
            return None
        z, columns = evidence.subject.latent(evidence.data), evidence.subject.residuals
        here = ~np.isnan(z)
        kept = here.sum(0) >= 2
        z, here = np.clip(z[:, kept], -FAR, FAR), here[:, kept]
        if not z.size:
            return None
        names = [columns[i] if columns else f"z{i + 1}" for i in kept.nonzero()[0]]
        n, numbers = z.shape
        found = [z[there, i] for i, there in enumerate(here.T)]
        distance = np.array([kstest(one, "norm").statistic for one in found])
        critical = 1.358 / np.sqrt(here.sum(0))
        order = np.argsort(-distance / critical)
        pictures = [_pit(z[here]), _quantiles([found[i] for i in order[:LINES]])]
        correlation = by_chance = error = math.nan
        pair, matrices = ("", ""), []
        if numbers > 1:
            plain, absolute = _correlations(z), _correlations(np.abs(z))
            i, j = np.unravel_index(np.abs(plain).argmax(), plain.shape)
            correlation, pair = float(np.abs(plain[i, j])), (names[i], names[j])
            pairs = numbers * (numbers - 1) / 2
            by_chance = math.sqrt(2 * math.log(max(pairs, 3)) / n)
            both = int((here[:, i] & here[:, j]).sum())
            error = float(norm.isf(0.025 / pairs)) / math.sqrt(max(both - 3, 1))
        if numbers > 2:
            what = "The correlations of {}, which should vanish."
            matrices = [
                matrix_shown(plain, names, what.format("z"), 0.1),
                matrix_shown(absolute, names, what.format("|z|"), 0.1),
            ]
        return cls(
            rows=n,
            numbers=numbers,
            residuals=bool(columns),
            far=int((distance > critical).sum()),
            critical=float(critical.min()),
            correlation=correlation,
            by_chance=by_chance,
            pair=pair,
            sure=(math.sqrt(math.log(2 * numbers / 0.05) / 2 / here[:, order[0]].sum()), error),
            worst=[
                (names[i], float(found[i].mean()), float(found[i].std()), float(distance[i]))
                for i in order[:WORST].tolist()
            ],
            pictures=pictures,
            matrices=matrices,
            unit=evidence.subject.unit,
        )

    @property
    def finding(self) -> str:
        """Whether the numbers are normal, and whether independent, of all tests together."""
        (name, _, _, distance), (chance, error) = self.worst[0], self.sure
        rows = f"{self.rows:,} {self.unit}s"
        if distance > chance:
            ends = interval(distance - chance, min(distance + chance, 1.0))
            found = f"Not all are normal: {name} is off by a distance of {distance:.2f} ({ends})."
        elif binom.sf(self.far - 1, self.numbers, 0.05) < 0.01:
            found = (
                f"Not all are normal: {self.far} of {self.numbers} are further off than one in "
                "twenty would be by chance."
            )
        else:
            found = no_difference(rows, 2 * chance, 1.0, what="from normal numbers")
        if self.numbers == 1:
            return found
        middle = math.atanh(min(self.correlation, 1 - 1e-9))
        if middle > error:
            ends = interval(math.tanh(middle - error), math.tanh(middle + error))
            pair = f"{self.pair[0]} and {self.pair[1]}"
            told = (
                f"They depend on each other: {pair} correlate by {self.correlation:.2f} ({ends})."
            )
        else:
            size = f"{math.tanh(2 * error):.2f}"
            told = f"No dependence found: {rows} would have shown a correlation of {size}."
        return f"{found} {told}"


def _correlations(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations off the diagonal, zero on it; of a constant, none, and a gap adds nothing."""
    here = ~np.isnan(z)
    centred = np.where(here, z - np.nanmean(z, 0), 0)
    # A pair counts the rows that have both; in a row with one of them its mean is the other.
    both = here.T.astype(np.float64) @ here
    scale = np.sqrt((centred**2).T @ here)
    product = scale * scale.T
    found: NDArray[np.float64] = centred.T @ centred / np.where(product > 0, product, np.inf)
    found[both < FEWEST] = 0
    np.fill_diagonal(found, 0)
    return found


def _pit(z: NDArray[np.float64]) -> Picture:
    """The histogram of the probability integral transform, flat if all is well."""
    figure, axes = _panel("Φ(z)", "density")
    counts, edges = np.histogram(norm.cdf(z), BINS, (0, 1))
    share = counts * BINS / z.size
    # The counts of one number are independent of those of another if the model is right.
    band = 2 * math.sqrt((BINS - 1) / z.size)
    axes.axhspan(1 - band, 1 + band, color="0.5", alpha=0.3, lw=0)
    axes.stairs(share, edges, color=DATA_COLOUR, fill=True, alpha=0.6)
    axes.set_ylim(0, max(1.3, 1.1 * share.max()))
    return embed(
        figure,
        f"Histogram of the probability integral transforms, between {share.min():.2f} and"
        f" {share.max():.2f} where a perfect model has 1",
        "PIT, Φ(z), of all numbers. It should be flat: high ends mean that the density is too"
        " narrow, a hill that it is too wide. Grey: where 19 bins of 20 should end.",
    )


def _quantiles(found: Sequence[NDArray[np.float64]]) -> Picture:
    """Quantiles of each number beside normal ones."""
    figure, axes = _panel("normal quantile", "quantile of z")
    alpha = max(0.15, 1 / math.sqrt(len(found)))
    furthest = 0.0
    for one in found:
        n = min(len(one), 200)
        shares = (np.arange(n) + 0.5) / n
        normal = norm.ppf(shares)
        line = np.quantile(one, shares)
        axes.plot(normal, line, color=DATA_COLOUR, lw=1, alpha=alpha)
        furthest = max(furthest, np.abs(line - normal)[np.abs(normal) < 2].max())
    axes.axline((0, 0), slope=1, color="0.2", lw=0.8)
    return embed(
        figure,
        f"Quantiles of z against normal ones; within two standard deviations the furthest line is"
        f" {furthest:.2f} off the diagonal",
        "Quantiles, a line for each number. They should lie on the diagonal.",
    )


def _panel(x: str, y: str) -> tuple[Figure, Axes]:
    figure = new_figure(4.2, 3.2)
    axes = figure.subplots()
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    return figure, axes
