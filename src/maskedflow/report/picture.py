"""The picture of a run: its samples beside its data, and how it was trained."""

from __future__ import annotations

import math
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from maskedflow.data import Split
from maskedflow.runs import Run, sample_batches

from .curve import training_curve
from .figures import DATA_COLOUR, SAMPLE_COLOUR, new_figure
from .forecasts import series_picture
from .images import image_grid
from .pairs import pair_grid
from .plane import density_on_grid, density_panel, plane_limits, point_panel

__all__ = ["run_picture", "samples_picture"]

IMAGES, POINTS = 64, 2000
"""Samples drawn if no number is asked for: of images, and of rows of a table."""

FORECASTS = 500
"""Forecasts drawn if no number is asked for."""

CONTEXTS = 100
"""Contexts over which the density of a conditional flow is averaged for a picture."""


def run_picture(run: Run, test: Split, num_samples: int | None = None, seed: int = 0) -> Figure:
    """Samples beside as many test rows, and the training curve.

    Images are shown in two grids; two features as data, learned density and samples side by side;
    other tables as pairwise panels of samples over data; a time series as forecasts over what came.
    A conditional flow is sampled once for the
    context of each of those test rows, and its density is the mean over some of them.

    Args:
        run: The run.
        test: The test rows.
        num_samples: Samples, and test rows, shown; 64 images or 2,000 rows if None.
        seed: Seed of the samples and of the choice of test rows.
    """
    data = run.config.data
    if data.window is not None:
        return series_picture(run, test, num_samples or FORECASTS, seed)
    n = min(num_samples or (POINTS if data.image_shape is None else IMAGES), len(test))
    rows = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:n]
    x = test.x[rows]
    context = None if test.context is None else test.context[rows]
    samples = draw(run, (num_samples or n) if context is None else 1, context, seed)
    if data.image_shape is not None:
        return _images(run, x, samples)
    if len(run.columns) == 2:
        return _plane(run, x, samples, context)
    return _pairs(run, x, samples)


def samples_picture(run: Run, samples: Tensor) -> Figure:
    """Samples alone: a grid of images, points of the plane, or pairwise panels.

    Args:
        run: The run they were drawn from.
        samples: Rows in the data's own units, shape (n, features).
    """
    shape = run.config.data.image_shape
    if shape is not None:
        figure = new_figure(6, 6)
        image_grid(figure.subplots(), samples, shape, levels=run.config.data.levels or 256)
    elif len(run.columns) == 2:
        figure = new_figure(5, 5)
        limits = plane_limits(samples)
        point_panel(figure.subplots(), samples, limits, colour=SAMPLE_COLOUR, names=run.columns)
    else:
        figure = new_figure(8, 8)
        corner = pair_grid(figure, None, samples, run.columns)
        if corner is not None:
            corner.remove()
    return figure


def draw(run: Run, n: int, context: Tensor | None, seed: int) -> Tensor:
    """All rows of :func:`maskedflow.runs.sample_batches` in one tensor."""
    return torch.cat([x for x, _ in sample_batches(run.density, n, context, seed=seed)])


def _images(run: Run, x: Tensor, samples: Tensor) -> Figure:
    shape, levels = run.config.data.image_shape, run.config.data.levels or 256
    assert shape is not None
    figure = new_figure(10, 7.5)
    figure.set_layout_engine("constrained", wspace=0.08)
    panels = figure.subplot_mosaic([["data", "samples"], ["curve", "curve"]], height_ratios=[3, 1])
    image_grid(panels["data"], x, shape, levels=levels, title=f"{run.name}: test images")
    image_grid(panels["samples"], samples, shape, levels=levels, title="samples")
    _curve(panels["curve"], run)
    return figure


def _plane(run: Run, x: Tensor, samples: Tensor, context: Tensor | None) -> Figure:
    figure = new_figure(16, 4.2)
    data, density, drawn, curve = figure.subplots(1, 4)
    limits, names = plane_limits(x), run.columns

    def log_prob(points: Tensor) -> Tensor:
        if context is None:
            each: Tensor = run.flow().log_prob(points)
            return each
        each = run.flow(context[:CONTEXTS]).log_prob(points[:, None])
        return each.logsumexp(-1) - math.log(each.shape[-1])

    point_panel(data, x, limits, colour=DATA_COLOUR, title=f"{run.name}: test data", names=names)
    grid = density_on_grid(log_prob, limits, points=200 if context is None else 80)
    density_panel(density, grid, limits, title="learned density", names=names)
    point_panel(drawn, samples, limits, colour=SAMPLE_COLOUR, title="samples", names=names)
    _curve(curve, run)
    curve.set_box_aspect(1)
    return figure


def _pairs(run: Run, x: Tensor, samples: Tensor) -> Figure:
    size = min(len(run.columns), 8)
    figure = new_figure(max(8.0, 1.4 * size), 4.0 if size == 1 else max(7.0, 1.4 * size))
    figure.suptitle(f"{run.name}: test data (blue), samples (orange)")
    if size == 1:
        left, right = figure.subfigures(1, 2, squeeze=False)[0]
        pair_grid(left, x, samples, run.columns)
        _curve(right.subplots(), run)
    else:
        corner = pair_grid(figure, x, samples, run.columns)
        assert corner is not None
        _curve(corner, run)
    return figure


def _curve(axes: Axes, run: Run) -> None:
    """The training curve, or nothing when there is no log of it."""
    metrics: list[dict[str, Any]] = run.metrics
    if not metrics:
        axes.set_axis_off()
        return
    losses = {
        key: [float("nan") if record[key] is None else record[key] for record in metrics]
        for key in ("train_nll", "validation_nll")
    }
    training_curve(axes, losses["train_nll"], losses["validation_nll"])
