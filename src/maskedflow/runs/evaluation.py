"""Measuring a run on its test rows, beside one Gaussian with a full covariance."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from maskedflow import training
from maskedflow.data import Dataset, Seen, Split, gaussian_log_likelihood
from maskedflow.training.randomness import noise_of, seed_noise
from maskedflow.transforms import LazyComposedTransform, LazyTransform, call_and_ladj

from .run import Run
from .series import LAGS, autoregression, joined, score_series

__all__ = ["Evaluation", "Mean", "evaluate_run", "front_of", "preprocessed"]

_ROWS = 1000


@dataclass(frozen=True)
class Mean:
    """A mean over rows with two standard errors.

    Args:
        value: The mean.
        error: Twice its standard error; nan for a single row.
    """

    value: float
    error: float

    @classmethod
    def of(cls, values: Tensor) -> Mean:
        """The mean of a vector.

        Example:
            >>> Mean.of(torch.tensor([1.0, 3.0, 5.0, 7.0]))
            Mean(value=4.0, error=2.58...)
        """
        values = values.double()
        spread = values.std().item() if len(values) > 1 else math.nan
        return cls(values.mean().item(), 2 * spread / math.sqrt(len(values)))

    def __str__(self) -> str:
        """The mean to the second digit of its error."""
        finite = math.isfinite(self.error) and self.error > 0
        digits = max(0, 1 - math.floor(math.log10(self.error))) if finite else 4
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"

    def scaled(self, factor: float) -> Mean:
        """The mean of the values times a number."""
        return Mean(self.value * factor, self.error * abs(factor))


@dataclass(frozen=True)
class Evaluation:
    """Log-likelihoods of the test rows in nats, in the data's own units.

    Args:
        flow: That of the flow.
        gaussian: That of a full-covariance Gaussian fitted to the training rows; None if their
            covariance is singular. Of a time series, that of a linear-Gaussian autoregression.
        logit_flow: For images, that of the flow in logit space, as papers print it.
        logit_gaussian: Likewise.
        rows: The number of test rows.
        features: The number of features.
        seconds: Wall time of the flow's part.
        lags: The steps that the autoregression looks back, for a time series.
        seen: How many of the test rows the run was trained on; None if that is not known.
    """

    flow: Mean
    gaussian: Mean | None
    logit_flow: Mean | None
    logit_gaussian: Mean | None
    rows: int
    features: int
    seconds: float
    lags: int | None = None
    seen: Seen | None = None


def evaluate_run(run: Run, dataset: Dataset) -> Evaluation:
    """Measures a run on the test rows of its data set.

    The Gaussian is fitted where the flow's first masked transform works, after noise and logit, and
    its density carried back to the data's units. Beside a conditional flow stands the conditional
    Gaussian, log N(x, c) - log N(c).

    Raises:
        ValueError: If the data set has no test row, or other columns than the run.
    """
    if not len(dataset.test):
        raise ValueError(f"{dataset.name}: it has no test rows")
    if dataset.window is not None:
        return _evaluate_series(run, dataset, dataset.window)
    start = time.monotonic()
    log_prob = training.evaluate(run.flow, dataset.test, batch_size=_ROWS)
    seconds = time.monotonic() - start
    # The noise of the test rows is the same again: same seed, same blocks. That of the training
    # rows must be another, or the Gaussian would have seen it.
    test, ladj = preprocessed(front_of(run), dataset.test, seed=0)
    train, _ = preprocessed(front_of(run), dataset.train, seed=1)
    gaussian = _gaussian(dataset, train, test)
    images = dataset.image_shape is not None
    return Evaluation(
        flow=Mean.of(log_prob),
        gaussian=None if gaussian is None else Mean.of(gaussian + ladj),
        logit_flow=Mean.of(log_prob - ladj) if images else None,
        logit_gaussian=Mean.of(gaussian) if images and gaussian is not None else None,
        rows=len(dataset.test),
        features=dataset.features,
        seconds=seconds,
        seen=run.seen(dataset.test),
    )


def _evaluate_series(run: Run, dataset: Dataset, window: int) -> Evaluation:
    """Log-likelihoods of the test steps, each given the steps before it, of training too."""
    start = time.monotonic()
    log_prob = score_series(run.flow, joined(dataset), window)[-len(dataset.test) :]
    seconds = time.monotonic() - start
    lags = min(LAGS, window - 1)
    gaussian = autoregression(dataset, lags)
    return Evaluation(
        flow=Mean.of(log_prob),
        gaussian=None if gaussian is None else Mean.of(gaussian),
        logit_flow=None,
        logit_gaussian=None,
        rows=len(dataset.test),
        features=dataset.features,
        seconds=seconds,
        lags=lags,
        seen=run.seen(dataset.test),
    )


def front_of(run: Run) -> LazyComposedTransform | None:
    """The preprocessing of a run, if it has any."""
    steps = len(run.config.flow.preprocessing)
    if not steps:
        return None
    chain = cast(LazyComposedTransform, run.flow.transform)
    return LazyComposedTransform(*cast(list[LazyTransform], list(chain.transforms)[:steps]))


def preprocessed(
    front: LazyComposedTransform | None, split: Split, seed: int
) -> tuple[Tensor, Tensor]:
    """The rows as the first masked transform sees them, and the ladj of getting there.

    Args:
        front: The preprocessing; none if None.
        split: The rows.
        seed: Seed of the dequantization noise.
    """
    if front is None:
        return split.x, torch.zeros(len(split), dtype=torch.float64)
    seed_noise(noise_of(front), seed)
    y, ladj = torch.empty(split.x.shape), torch.empty(len(split), dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, len(split), _ROWS):
            rows = slice(start, start + _ROWS)
            x = split.x[rows]
            x = x if x.dtype == torch.float64 else x.float()
            y[rows], ladj[rows] = call_and_ladj(front(), x)
    return y, ladj


def _gaussian(dataset: Dataset, train: Tensor, test: Tensor) -> Tensor | None:
    """The log-density of a full-covariance Gaussian given the context, None if it is singular."""
    c, c_test = dataset.train.context, dataset.test.context
    try:
        if c is None or c_test is None:
            return gaussian_log_likelihood(train, test)
        if dataset.image_shape is not None:
            c, c_test = c[:, :-1], c_test[:, :-1]  # the last one-hot label follows from the others
        joint = gaussian_log_likelihood(torch.hstack([train, c]), torch.hstack([test, c_test]))
        return joint - gaussian_log_likelihood(c, c_test)
    except ValueError:
        return None
