"""Columns alone on a diagonal, each pair of them below it, and what is drawn there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from .figures import Limits, bin_edges
from .ticks import InnerLocator, PlainFormatter, counted_in, power_of

LEVELS = (0.393, 0.864)
"""What is inside of one and two standard deviations of a Gaussian of the plane."""

FEWEST, POINTS = 20, 2000
"""The fewest rows for contours, and the most points in a panel."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Layer:
    """Rows and the colour they are drawn in.

    Args:
        rows: Finite numbers, shape (n, D).
        colour: A colour of matplotlib's.
        filled: Whether what they cover is filled, too.
        weights: How much each row counts, shape (n,); all the same if None.
    """

    rows: Numbers
    colour: str
    filled: bool = False
    weights: Numbers | None = None

    @cached_property
    def size(self) -> float:
        """The effective number of rows."""
        w = self.weights
        return len(self.rows) if w is None else float(w.sum() ** 2 / np.square(w).sum())

    @property
    def key(self) -> Artist:
        """What stands for it in a legend."""
        if self.filled:
            return Patch(color=self.shades()[-1], linewidth=0)
        return Line2D([], [], color=self.colour)

    def shades(self) -> list[tuple[float, float, float, float]]:
        """Its colour from nothing to half, as many as contours have areas."""
        return [to_rgba(self.colour, alpha) for alpha in (0.0, 0.25, 0.5)]

    def edges(self, i: int, limits: Limits, most: int) -> Numbers:
        """The edges of bins of one column, fewer of few rows."""
        return bin_edges(self.rows[:, i], limits, int(np.clip(np.sqrt(self.size), 12, most)))

    def histogram(self, axes: Axes, i: int, limits: Limits) -> None:
        """Draws the density of one column, of all values, those outside of the limits too."""
        edges = self.edges(i, limits, 40)
        counts, _ = np.histogram(self.rows[:, i], edges, weights=self.weights)
        total = len(self.rows) if self.weights is None else self.weights.sum()
        density = counts / (total * (edges[1] - edges[0]))
        alpha = 0.5 if self.filled else 1.0
        axes.stairs(density, edges, color=self.colour, fill=self.filled, alpha=alpha, lw=1.3)

    def points(self, axes: Axes, j: int, i: int) -> None:
        """Draws points behind all else, as often as their weights say."""
        rows = self.rows
        if self.weights is not None:
            rng, share = np.random.default_rng(0), self.weights / self.weights.sum()
            rows = rows[rng.choice(len(rows), min(POINTS, int(self.size)), p=share)]
        elif len(rows) > POINTS:
            rows = rows[np.linspace(0, len(rows) - 1, POINTS).astype(int)]
        area = np.clip(1000 / max(len(rows), 1), 2, 10)
        axes.scatter(
            rows[:, j], rows[:, i], s=area, color=self.colour, alpha=0.35, linewidths=0, zorder=-1
        )

    def contours(self, axes: Axes, j: int, i: int, limits: tuple[Limits, Limits]) -> None:
        """Draws contours of 39% and 86% of the rows, if they are enough."""
        from corner import hist2d  # imports pyplot, which most of this library does without

        x, y = self.rows[:, j], self.rows[:, i]
        inside = np.logical_and.reduce(
            [(low < z) & (z < high) for z, (low, high) in zip((x, y), limits, strict=True)]
        )
        if inside.sum() < FEWEST:
            return
        shape = (
            {"fill_contours": True, "contourf_kwargs": {"colors": self.shades()}}
            if self.filled
            else {"no_fill_contours": True}
        )
        edges = [self.edges(k, ends, 30) for k, ends in zip((j, i), limits, strict=True)]
        kept = [
            (axis, axis.get_major_locator(), axis.get_major_formatter())
            for axis in (axes.xaxis, axes.yaxis)
        ]
        hist2d(
            x[inside],
            y[inside],
            ax=axes,
            range=[(one[0], one[-1]) for one in edges],
            bins=[len(one) - 1 for one in edges],
            weights=None if self.weights is None else self.weights[inside],
            smooth=1.0,
            levels=LEVELS,
            quiet=True,
            color=self.colour,
            plot_datapoints=False,
            plot_density=False,
            contour_kwargs={"linewidths": 0 if self.filled else 1.3, "colors": self.colour},
            **shape,
        )
        axes.set(xlim=limits[0], ylim=limits[1])  # it has set its own, and scales
        for axis, locator, formatter in kept:
            axis.set_major_locator(locator)
            axis.set_major_formatter(formatter)


def side(size: int) -> float:
    """The length in inches of the side of a figure for so many columns."""
    return max(4.0, 1.25 * size + 0.5)


def pairs_of(size: int) -> list[tuple[int, int]]:
    """The row and the column of each panel, those of the diagonal too."""
    return [(row, column) for row in range(size) for column in range(row + 1)]


def triangle(
    figure: Figure | SubFigure, names: Sequence[str], limits: Sequence[Limits]
) -> NDArray[np.object_]:
    """Axes for D columns and their pairs, shape (D, D), None above the diagonal."""
    size = len(names)
    cells = figure.add_gridspec(size, size, wspace=0.03, hspace=0.03)
    found = np.full((size, size), None, dtype=object)
    powers = [power_of(ends) for ends in limits]
    names = [counted_in(name, power) for name, power in zip(names, powers, strict=True)]
    for row, column in pairs_of(size):
        axes = found[row, column] = figure.add_subplot(cells[row, column])
        axes.tick_params(labelsize=7)
        axes.set_xlim(limits[column])
        axes.xaxis.set_major_locator(InnerLocator(3 if size > 2 else 5))
        axes.xaxis.set_major_formatter(PlainFormatter(powers[column]))
        if row < size - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel(names[column], fontsize=8)
            axes.tick_params(axis="x", rotation=45)
        if column == row:
            axes.set_yticks([])
            continue
        axes.set_ylim(limits[row])
        axes.yaxis.set_major_locator(InnerLocator(4))
        axes.yaxis.set_major_formatter(PlainFormatter(powers[row]))
        if column:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel(names[row], fontsize=8)
    figure.align_labels()
    return found


def fill(
    panels: NDArray[np.object_], limits: Sequence[Limits], layers: Sequence[Layer], points: bool
) -> None:
    """Draws layers one over the other: histograms and contours, over points of those filled."""
    for row, column in pairs_of(len(limits)):
        axes = panels[row, column]
        for layer in layers:
            if row == column:
                layer.histogram(axes, row, limits[row])
            else:
                if points and layer.filled:
                    layer.points(axes, column, row)
                layer.contours(axes, column, row, (limits[column], limits[row]))
        if row == column:
            axes.set_ylim(bottom=0)
