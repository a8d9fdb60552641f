"""Runs of time series: windows to train on, log-densities given the past, forecasts."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from maskedflow.data import (
    Dataset,
    Series,
    SeriesDataset,
    Split,
    calendar,
    conditional_gaussian,
    read_series,
    windows,
)
from maskedflow.data.table import File
from maskedflow.data.windows import cut
from maskedflow.flows import TemporalMAF
from maskedflow.training.batches import take, weight_of
from maskedflow.training.evaluation import frozen

from .run import Run

__all__ = [
    "LAGS",
    "autoregression",
    "forecast",
    "joined",
    "score_file",
    "score_series",
]

LAGS = 24
"""The most steps that the linear autoregression beside a flow looks back."""

WINDOWS, FORECASTS = 64, 1000
"""Windows scored, and forecasts drawn, at once."""


def joined(dataset: Dataset) -> Split:
    """All rows of a time series, in the order of time."""
    parts = (dataset.train, dataset.validation, dataset.test)
    contexts = [part.context for part in parts if part.context is not None]
    return Split(torch.cat([part.x for part in parts]), torch.cat(contexts) if contexts else None)


def score_series(flow: nn.Module, series: Split, window: int) -> Tensor:
    r"""Computes :math:`\log p(x_t \mid x_{<t}, c)` of each step of a series, in nats.

    The series is cut into windows that overlap by half, of which the later half counts: each step
    is given at least half a window of its past, and less than a window, as in training. The first
    steps are given what there is.

    Args:
        flow: A :class:`~maskedflow.flows.TemporalMAF`.
        series: The steps in order, with their covariates.
        window: The steps of a window.

    Returns:
        The log-densities, float64, shape `(n,)`.
    """
    flow = cast(TemporalMAF, flow)
    window = min(window, len(series))
    half = -(-window // 2)
    start = len(series) - window
    head = slice(0, start % half + window - half)  # what the first window does not count
    later = cut(series, window, half)
    found = []
    with frozen(flow):
        like = weight_of(flow)
        if head.stop:
            x, c = take(series, head, like)
            found.append(flow(c, steps=len(x)).log_prob_steps(x))
        for first in range(0, len(later), WINDOWS):
            x, c = take(later, slice(first, first + WINDOWS), like)
            steps = flow(c, steps=window).log_prob_steps(x)
            found.append(steps[:, -half:].reshape(-1))
    return torch.cat(found).double().cpu()


def score_file(run: Run, path: File) -> Tensor:
    """The log-density of each row of a table given the rows before it in time, in file's order."""
    data = run.config.data
    assert data.time is not None
    assert data.window is not None
    series = read_series(path, data.time, run.columns)
    log_prob = score_series(run.flow, _split(run, series), data.window)
    in_order = torch.empty_like(log_prob)
    in_order[series.order] = log_prob
    return in_order


def forecast(run: Run, series: Series, steps: int, n: int, seed: int = 0) -> Tensor:
    """Draws forecasts that continue a series.

    Args:
        run: A run of a time series.
        series: The series, of which the last window is the past.
        steps: The number of steps.
        n: The number of forecasts.
        seed: Seed of the draws.

    Returns:
        The forecasts in the data's own units, shape (n, steps, features).

    Raises:
        ValueError: If `steps` or `n` is less than 1.
    """
    if steps < 1 or n < 1:
        raise ValueError(f"steps, n: expected at least 1, got {steps} and {n}")
    flow = cast(TemporalMAF, run.flow)
    window = run.config.data.window
    assert window is not None
    past = _split(run, series)
    past = Split(past.x[-window:], None if past.context is None else past.context[-window:])
    c = past.context
    if c is not None:
        c = torch.cat([c, calendar(series.following(steps), run.context_columns)])
    device = weight_of(flow).device
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        ahead = flow.forecast(past.x.to(device), steps, None if c is None else c.to(device))
        sizes = [min(FORECASTS, n - first) for first in range(0, n, FORECASTS)]
        return torch.cat([ahead.sample((size,), generator).cpu() for size in sizes])


def autoregression(dataset: SeriesDataset, lags: int) -> Tensor | None:
    r"""The log-density of each test step under a linear-Gaussian autoregression, in nats.

    .. math:: x_t \sim N\Big(b + B c_t + \sum_{l=1}^p A_l x_{t-l}, \ \Sigma\Big)

    It is fitted to the training steps by least squares, with the full covariance of its residuals.

    Args:
        dataset: The time series.
        lags: The number p of steps that it looks back.

    Returns:
        The log-densities, float64, shape `(test,)`; None if the regression is singular.
    """
    series = joined(dataset)
    known = windows(series.x[:-1], lags).flatten(1)
    if series.context is not None:
        known = torch.hstack([series.context[lags:], known])
    steps = series.x[lags:]
    train, test = len(dataset.train) - lags, len(dataset.test)
    return conditional_gaussian((steps[:train], steps[-test:]), (known[:train], known[-test:]))


def _split(run: Run, series: Series) -> Split:
    """The steps of a series with what the run knows of their dates."""
    names = run.context_columns
    return Split(series.x, calendar(series.times, names) if names else None)
