"""The pictures of a time series' run."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.data import Series, Split
from maskedflow.flows import TemporalMAF
from maskedflow.runs import Run

from .fan import fan_panel
from .figures import new_figure

__all__ = ["forecast_picture", "series_picture"]

PANELS, PAST = 6, 48
"""The most features that have a panel, and the most steps of the past in it."""


def series_picture(run: Run, test: Split, n: int, seed: int) -> Figure:
    """Forecasts of the test steps' later half, or of a window of it, over what came.

    Args:
        run: The run.
        test: The test steps.
        n: The number of forecasts.
        seed: Seed of the forecasts.
    """
    window = run.config.data.window or len(test)
    half = min(window, len(test) // 2)
    steps = min(PAST, len(test) - half)
    flow, c = cast(TemporalMAF, run.flow), test.context
    with torch.no_grad():
        ahead = flow.forecast(test.x[:half], steps, None if c is None else c[: half + steps])
        samples = ahead.sample((n,), torch.Generator().manual_seed(seed))
    times = np.arange(half + steps)
    return _panels(run, times[:half], test.x[:half], times[half:], samples, test.x[half:][:steps])


def forecast_picture(run: Run, series: Series, samples: Tensor) -> Figure:
    """Forecasts behind the latest steps of a series.

    Args:
        run: The run.
        series: The series.
        samples: The forecasts, shape (n, steps, features).
    """
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
    panels[0].set_title(f"{run.name}: {len(samples)} forecasts", fontsize=10)
    panels[0].legend(fontsize=8, frameon=False, ncols=5)
    return figure
