"""Measuring a run on its test rows, beside something simpler."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, cast

import torch
from torch import Tensor

from maskedflow.data import (
    Dataset,
    ImageDataset,
    MixedTable,
    Seen,
    SeriesDataset,
    Split,
    TableSplit,
    conditional_gaussian,
)
from maskedflow.tables import FittedTable
from maskedflow.tables.matrix import simpler

from .density import FlowDensity, preprocessed
from .measured import gaussian_baseline
from .run import Run
from .series import LAGS, autoregression, joined, score_series

__all__ = ["Evaluation", "Mean", "evaluate_run", "score_test"]


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
    def of(cls, values: Tensor, weight: Tensor | None = None) -> Mean:
        r"""The mean of a vector, whose numbers have a weight each, all alike if None.

        .. math:: m = \frac{\sum_i w_i x_i}{\sum_i w_i}, \qquad
            s^2 = \frac{k}{k - 1} \frac{\sum_i w_i^2 (x_i - m)^2}{(\sum_i w_i)^2}, \qquad
            k = \frac{(\sum_i w_i)^2}{\sum_i w_i^2}

        The standard error s is that of a ratio of two sums over independent rows.

        References:
            Sampling Techniques (Cochran, 1977), section 6.4

        Example:
            >>> Mean.of(torch.tensor([1.0, 3.0, 5.0, 7.0]))
            Mean(value=4.0, error=2.58...)
            >>> Mean.of(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([2.0, 2.0, 0.0]))
            Mean(value=2.0, error=2.0)
        """
        values = values.double()
        if weight is None:
            spread = values.std().item() if len(values) > 1 else math.nan
            return cls(values.mean().item(), 2 * spread / math.sqrt(len(values)))
        values, share = values[weight > 0], weight[weight > 0].double()
        share = share / share.sum()
        mean = (share @ values).item()
        rows = 1 / share.square().sum().item()
        spread = (share * (values - mean)).square().sum().item()
        return cls(mean, 2 * math.sqrt(spread * rows / (rows - 1)) if rows > 1 else math.nan)

    def __str__(self) -> str:
        """The mean to the second digit of its error, thousands set apart."""
        finite = math.isfinite(self.error) and self.error > 0
        digits = max(0, 1 - math.floor(math.log10(self.error))) if finite else 4
        return f"{self.value:,.{digits}f} ± {self.error:,.{digits}f}"

    def scaled(self, factor: float) -> Mean:
        """The mean of the values times a number."""
        return Mean(self.value * factor, self.error * abs(factor))


@dataclass(frozen=True)
class Evaluation:
    """Log-likelihoods of the test rows in nats, in the data's own units.

    Args:
        density: That of the run's density.
        baseline: That of something simpler; None if a covariance is singular.
        against: What the simpler density is.
        rows: The number of test rows.
        effective: The number of rows of equal weight that these are worth; None if they have none.
        features: The number of features; None if bits per dimension say nothing.
        seconds: Wall time of the density's part.
        unit: What a row is: an example, a step of a time series, or a row of a table.
        logit: For images, log-likelihoods of both in logit space, as papers print them.
        unseen: The rows more that were left out, as their context was not there before.
        seen: How many of the test rows it was fitted to; None if that is not known.
    """

    density: Mean
    baseline: Mean | None
    against: str
    rows: int
    features: int | None
    seconds: float
    effective: float | None = None
    unit: str = "example"
    logit: tuple[Mean, Mean | None] | None = None
    unseen: int = 0
    seen: Seen | None = None


def evaluate_run(run: Run, dataset: Dataset | MixedTable) -> Evaluation:
    """Measures a run on the test rows of its data set.

    Beside a flow stands one Gaussian with a full covariance. It is fitted where the flow's first
    masked transform works, after noise and logit, and its density carried back to the data's units.
    Of rows that were measured with errors, densities are of what was measured, given these, and the
    Gaussian is one of rows without them.
    Given a context it is the conditional Gaussian, log N(x, c) - log N(c). Beside a time series
    stands a linear-Gaussian autoregression, beside a table of which not all columns are numbers the
    product of its columns' densities, see :func:`~maskedflow.data.independent`.

    Raises:
        ValueError: If there is no test row, or none that can be scored.
    """
    test = scorable(run, dataset)
    log_prob, seconds = score_test(run, dataset, test)
    against, baseline, ladj = _baseline(dataset, run, test)
    logit = None
    if run.config.data.image_shape is not None:
        logit = Mean.of(log_prob - ladj), None if baseline is None else Mean.of(baseline)
    weight = test.weight
    return Evaluation(
        density=Mean.of(log_prob, weight),
        baseline=None if baseline is None else Mean.of(baseline + ladj, weight),
        against=against,
        rows=len(log_prob),
        features=None if run.config.flow is None else len(run.columns),
        seconds=seconds,
        effective=None if weight is None else test.effective,
        unit=_unit(run),
        logit=logit,
        unseen=len(dataset.test) - len(test),
        seen=run.density.seen(test.x, test.context),
    )


def scorable(run: Run, dataset: Dataset | MixedTable) -> Any:
    """The test rows that can be scored.

    Raises:
        ValueError: If there is none.
    """
    test = run.density.possible(dataset.test)
    if not len(test):
        raise ValueError(f"{dataset.name}: it has no test rows that can be scored")
    return test


def score_test(run: Run, dataset: Dataset | MixedTable, test: Any) -> tuple[Tensor, float]:
    """The log-density of each of these test rows of a data set, and the seconds that took.

    Those of a time series are given the steps before them, of training too.
    """
    if isinstance(dataset, SeriesDataset):
        start = time.perf_counter()
        log_prob = score_series(run.flow, joined(dataset), dataset.window)
        seconds = (time.perf_counter() - start) * len(test) / len(log_prob)
        return log_prob[-len(test) :], seconds
    start = time.perf_counter()
    log_prob = run.density.log_prob(test.x, test.context)
    return log_prob, time.perf_counter() - start


def _unit(run: Run) -> str:
    if run.config.flow is None:
        return "row"
    return "example" if run.config.data.window is None else "step"


@singledispatch
def _baseline(dataset: Any, run: Run, test: Any) -> tuple[str, Tensor | None, Tensor]:
    """What something simpler is, its log-density, and the ladj that takes it to data's units."""
    raise TypeError(f"dataset: expected one, got {type(dataset).__name__}")


@_baseline.register
def _of_numbers(dataset: Dataset, run: Run, test: Split) -> tuple[str, Tensor | None, Tensor]:
    # The noise of the test rows is the same again: same seed, same blocks. That of the training
    # rows must be another, or the Gaussian would have seen it.
    if dataset.errors:
        none = torch.zeros(len(test), dtype=torch.float64)
        return "deconvolved Gaussian", gaussian_baseline(dataset, test), none
    front = cast(FlowDensity, run.density).front
    x_test, ladj = preprocessed(front, test, seed=0)
    x, _ = preprocessed(front, dataset.train, seed=1)
    c, c_test = dataset.train.context, test.context
    if c is not None and c_test is not None and isinstance(dataset, ImageDataset):
        c, c_test = c[:, :-1], c_test[:, :-1]  # the last one-hot label follows from the others
    gaussian = conditional_gaussian((x, x_test), (c, c_test), dataset.train.weight)
    return "full Gaussian", gaussian, ladj


@_baseline.register
def _of_series(dataset: SeriesDataset, run: Run, test: Split) -> tuple[str, Tensor | None, Tensor]:
    lags, none = min(LAGS, dataset.window - 1), torch.zeros(len(test), dtype=torch.float64)
    return f"linear AR({lags})", autoregression(dataset, lags), none


@_baseline.register
def _of_table(dataset: MixedTable, run: Run, test: TableSplit) -> tuple[str, Tensor | None, Tensor]:
    none = torch.zeros(len(test), dtype=torch.float64)
    return *simpler(cast(FittedTable, run.density).schemas, dataset.train, test), none
