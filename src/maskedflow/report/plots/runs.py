"""Pictures of runs: samples beside data and the training, forecasts, several runs compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.data import Series, Split
from maskedflow.flows import TemporalMAF
from maskedflow.plot.figures import DATA_COLOUR, SAMPLE_COLOUR, new_figure
from maskedflow.report.section import proportional
from maskedflow.runs import Compared, Mean, Run, sample_batches

from .curves import fan_panel, losses, training_curve
from .images import image_grid
from .pairs import pair_grid
from .plane import plane_limits, plane_panels, point_panel

IMAGES, POINTS, FORECASTS = 64, 2000, 500
"""Samples drawn if no number is asked for: of images, rows of a table, and a time series."""

CONTEXTS = 100
"""Contexts over which the density of a conditional flow is averaged for a picture."""

PANELS, PAST = 6, 48
"""The most features of a series that have a panel, and the most steps of the past in it."""


def run_picture(
    run: Run,
    test: Split,
    num_samples: int | None = None,
    seed: int = 0,
    times: NDArray[Any] | None = None,
) -> Figure:
    """Draws samples beside as many test rows, and the training curve.

    Images are shown in two grids; two features as data, learned density and samples side by side;
    other tables as pairwise panels of samples over data; a time series as forecasts over what came.
    A conditional flow is sampled once for the context of each of those test rows, and its density
    is the mean over some of them. Samples have the errors of these rows, if any. Rows of different
    weights are drawn in proportion first. If no number is asked for, 64 images or 2,000 rows are
    shown. The `times` are those of a series' test steps, which are counted if there are none.
    """
    data = run.config.data
    if data.window is not None:
        return series_picture(run, test, num_samples or FORECASTS, seed, times)
    if test.weight is not None:
        test = test[torch.from_numpy(proportional(test.mass.numpy(), seed))]
    n = min(num_samples or (POINTS if data.image_shape is None else IMAGES), len(test))
    rows = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:n]
    x = test.x[rows]
    context = None if test.context is None else test.context[rows]
    each = (num_samples or n) if context is None else 1
    batches = sample_batches(run.density, each, context, seed=seed)
    samples = torch.cat([drawn for drawn, _ in batches])
    if data.image_shape is not None:
        return _images(run, x, samples)
    if len(run.columns) == 2:
        return _plane(run, x, samples, context)
    return _pairs(run, x, samples)


def samples_picture(run: Run, samples: Tensor) -> Figure:
    """Draws samples of a run, shape (n, features), alone: images, points, or pairwise panels."""
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
    *panels, curve = figure.subplots(1, 4)

    size, exact = len(run.context_columns), not run.config.data.errors

    def log_prob(points: Tensor) -> Tensor:
        if context is None or not size:
            each: Tensor = run.flow().log_prob(points)
            return each
        each = run.flow(context[:CONTEXTS, :size]).log_prob(points[:, None])
        return each.logsumexp(-1) - math.log(each.shape[-1])

    learned = "learned density" if exact else "learned density, without errors"
    titles = (f"{run.name}: test data", learned, "samples" if exact else "samples, with errors")
    cells = 200 if not size else 80
    plane_panels(panels, x, samples, log_prob, run.columns, titles=titles, cells=cells)
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
    found = losses(run.metrics)
    if found is None:
        axes.set_axis_off()
    else:
        training_curve(axes, *found)


def series_picture(
    run: Run, test: Split, n: int, seed: int, times: NDArray[Any] | None = None
) -> Figure:
    """Draws forecasts of the test steps' later half, or of a window of it, over what came."""
    window = run.config.data.window or len(test)
    half = min(window, len(test) // 2)
    steps = min(PAST, len(test) - half)
    flow, c = cast(TemporalMAF, run.flow), test.context
    with torch.no_grad():
        ahead = flow.forecast(test.x[:half], steps, None if c is None else c[: half + steps])
        samples = ahead.sample((n,), torch.Generator().manual_seed(seed))
    when = np.arange(len(test)) if times is None else times
    ahead_of = when[half:][:steps]
    return _panels(run, when[:half], test.x[:half], ahead_of, samples, test.x[half:][:steps])


def forecast_picture(run: Run, series: Series, samples: Tensor) -> Figure:
    """Draws forecasts, shape (n, steps, features), behind the latest steps of a series."""
    following = series.following(samples.shape[1])
    return _panels(run, series.times, series.x, following, samples, None)


def _panels(
    run: Run,
    before: NDArray[Any],
    past: Tensor,
    times: NDArray[Any],
    samples: Tensor,
    truth: Tensor | None,
) -> Figure:
    names = run.columns[:PANELS]
    figure = new_figure(9, 1 + 2 * len(names))
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for i, (axes, name) in enumerate(zip(panels, names, strict=True)):
        fan_panel(
            axes,
            times,
            samples[..., i].numpy(),
            past=(before[-PAST:], past[-PAST:, i].numpy()),
            truth=None if truth is None else truth[:, i].numpy(),
            name=name,
        )
    panels[0].set_title(f"{run.name}: {len(samples):,} forecasts", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, frameon=False, ncols=5)
    return figure


def comparison_picture(found: Sequence[Compared]) -> Figure:
    """Draws the NLL of each run, the best first, and its distance from it, with error bars."""
    figure = new_figure(9, 1.3 + 0.35 * len(found))
    left, right = figure.subplots(1, 2, sharey=True)
    right.axvline(0, color="0.5", lw=1)
    places, none = range(len(found)), Mean(math.nan, math.nan)
    behind = [one.behind or none for one in found]
    for axes, title, colour, means in (
        (left, "NLL (nats)", DATA_COLOUR, [one.nll for one in found]),
        (right, f"behind {found[0].name} (nats)", SAMPLE_COLOUR, behind),
    ):
        values, errors = [mean.value for mean in means], [mean.error for mean in means]
        axes.errorbar(values, places, xerr=errors, fmt="o", color=colour, capsize=3)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    left.set_yticks(places, [one.name for one in found])
    left.set_ylim(len(found) - 0.5, -0.5)
    return figure
