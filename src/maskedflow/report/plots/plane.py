"""Densities of two features: points, and the learned density on a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maskedflow.plot.figures import DATA_COLOUR, SAMPLE_COLOUR, Limits, limits_of
from maskedflow.plot.grid import grid

Box = tuple[Limits, Limits]


def plane_limits(points: ArrayLike) -> Box:
    """The box of the middle 99.8 % of points, a tenth wider on each side.

    Returns:
        ((left, right), (bottom, top)).

    Example:
        >>> plane_limits([[0.0, 10.0], [1.0, 20.0]])
        ((-0.0988, 1.0988), (9.012, 20.988))
    """
    x, y = np.asarray(points, dtype=np.float64).T
    return limits_of(x, edge=0.1), limits_of(y, edge=0.1)


def density_on_grid(
    log_prob: Callable[[Tensor], Tensor], limits: Box, points: int = 200
) -> NDArray[np.float64]:
    """Evaluates the density, not its logarithm, at the centres of `points` x `points` cells.

    Args:
        log_prob: Log-density in nats of rows, shape (n, 2) -> (n,).
        limits: ((left, right), (bottom, top)).
        points: Cells along each side.

    Returns:
        Densities, shape (points, points), the first row at the bottom.

    Example:
        >>> box = torch.distributions.Uniform(torch.zeros(2), torch.ones(2))
        >>> density_on_grid(lambda x: box.log_prob(x).sum(-1), ((0, 1), (0, 1)), 2)
        array([[1., 1.],
               [1., 1.]])
    """
    cells = torch.from_numpy(grid(limits, points)).float()
    with torch.no_grad():
        # One row of cells at a time keeps memory flat for wide networks and many contexts.
        log_density = torch.cat([log_prob(part) for part in cells.split(points)])
    return log_density.double().exp().reshape(points, points).numpy()


def point_panel(
    axes: Axes,
    points: ArrayLike,
    limits: Box,
    *,
    colour: str,
    title: str = "",
    names: Sequence[str] = ("", ""),
) -> None:
    """Draws points of the plane, shape (n, 2)."""
    rows = np.asarray(points)
    axes.scatter(rows[:, 0], rows[:, 1], s=2, color=colour, alpha=0.4, linewidths=0)
    _frame(axes, limits, title, names)


def density_panel(
    axes: Axes,
    density: NDArray[np.float64],
    limits: Box,
    *,
    title: str = "",
    names: Sequence[str] = ("", ""),
) -> None:
    """Draws a density from :func:`density_on_grid`, dark where it is high."""
    axes.imshow(
        density,
        origin="lower",
        extent=(*limits[0], *limits[1]),
        aspect="auto",
        cmap="Blues",
        # A thin spike would leave everything else white.
        vmax=float(np.quantile(density, 0.998)) or None,
        vmin=0,
        interpolation="bilinear",
    )
    _frame(axes, limits, title, names)


def plane_panels(
    panels: Sequence[Axes],
    data: ArrayLike,
    samples: ArrayLike,
    log_prob: Callable[[Tensor], Tensor],
    names: Sequence[str],
    *,
    titles: Sequence[str] = ("", "", ""),
    cells: int = 200,
    most: int | None = None,
) -> None:
    """Draws data, density and samples of two features, a panel each, within the data's limits."""
    limits, (left, middle, right) = plane_limits(data), panels
    for axes, points, colour, title in (
        (left, data, DATA_COLOUR, titles[0]),
        (right, samples, SAMPLE_COLOUR, titles[2]),
    ):
        shown = np.asarray(points)[:most]
        point_panel(axes, shown, limits, colour=colour, title=title, names=names)
    density = density_on_grid(log_prob, limits, cells)
    density_panel(middle, density, limits, title=titles[1], names=names)


def _frame(axes: Axes, limits: Box, title: str, names: Sequence[str]) -> None:
    axes.set(xlim=limits[0], ylim=limits[1], title=title, xlabel=names[0], ylabel=names[1])
    axes.set_box_aspect(1)
