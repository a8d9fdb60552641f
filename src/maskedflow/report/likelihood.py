"""Likelihood of test rows beside what a density estimator has to beat; the extreme rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from maskedflow.data import (
    choose_kde,
    choose_mixture,
    gaussian_log_likelihood,
    independent,
)
from maskedflow.runs import Mean

from .subject import Rows, Subject

__all__ = ["Likelihood", "Likelihoods", "likelihoods"]

FITTED = 10_000
"""The most training rows that baselines are fitted to, or ten times the features if more."""

WIDE = 100
"""The most features for mixtures and kernels: with more, they take minutes and are no match."""

JUDGED = 2_000
"""The most test rows that kernels are evaluated at: each takes a time of all training rows."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of the test rows under one density.

    Args:
        name: Which.
        nll: The mean negative log-likelihood in nats.
        bpd: The same in bits a feature.
        behind: How much larger its NLL is than that of the subject, row by row; None of that.
        fitted: The number of training rows it was fitted to.
        rows: The number of test rows.
    """

    name: str
    nll: Mean
    bpd: Mean
    behind: Mean | None
    fitted: int
    rows: int


@dataclass(frozen=True)
class Likelihoods:
    """Those of the subject, first, and of the baselines.

    Args:
        found: One a density.
        remarks: How they were chosen, or why one is missing, a sentence each.
    """

    found: list[Likelihood]
    remarks: list[str]

    @property
    def best(self) -> Likelihood | None:
        """The baseline that is least behind, on the rows that it was evaluated at."""

        def behind(one: Likelihood) -> float:
            return one.nll.value if one.behind is None else one.behind.value

        return min(self.found[1:], key=behind, default=None)


def likelihoods(
    subject: Subject, log_prob: Vector, train: Rows, validation: Rows, test: Rows, seed: int = 0
) -> Likelihoods:
    """Compares the log-likelihoods of test rows with those of baselines.

    Of a conditional density the only baseline is the conditional Gaussian, log N(x, c) - log N(c).
    Where categories, gaps or atoms are among the numbers, there are independent columns
    (:func:`~maskedflow.data.independent`) and what the subject brings along. Without training rows
    there is none.

    Args:
        subject: The density.
        log_prob: Its log-likelihood of each test row.
        train: Rows to fit baselines to; so many are used as keep it quick.
        validation: Rows to choose among them.
        test: The test rows.
        seed: Seed of which rows, and of the mixture's start.
    """
    rng = np.random.default_rng(seed)
    most = max(FITTED, 10 * subject.features)
    fitted = train[np.sort(rng.permutation(len(train))[:most])]
    own = len(train) if subject.fitted is None else subject.fitted
    found = [_likelihood(subject, subject.name, own, log_prob, None)]
    remarks: list[str] = []
    for name, number, other in _baselines(subject, fitted, validation, test, seed, remarks):
        found.append(_likelihood(subject, name, number, other, log_prob[: len(other)]))
    return Likelihoods(found, remarks)


def _likelihood(
    subject: Subject, name: str, fitted: int, values: Vector, own: Vector | None
) -> Likelihood:
    def mean(x: Vector) -> Mean:
        return Mean.of(torch.from_numpy(x))

    nll = mean(-values)
    bpd = nll.scaled(1 / (subject.features * math.log(2)))
    behind = None if own is None else mean(own - values)
    return Likelihood(name, nll, bpd, behind, fitted, len(values))


def _baselines(
    subject: Subject, train: Rows, validation: Rows, test: Rows, seed: int, remarks: list[str]
) -> Iterator[tuple[str, int, Vector]]:
    """Names, numbers of rows to fit, log-likelihoods of the test rows or of the first of them."""
    if not len(train):
        remarks.append(
            "Other densities need training rows to be fitted to, of which none were given."
        )
        return
    x = slice(0, subject.features)
    if _mixed(subject, train, test):
        yield "independent columns", len(train), independent(subject.columns[x], train, test)
        for name, score in subject.baselines.items():
            yield name, len(train), score(train, test)
        remarks.append(
            "Independent columns have a density each, fitted to their quantiles or shares, and"
            " leave out how columns depend on each other. A mixture of Gaussians and kernels are"
            " left out, because they know complete rows of numbers only."
        )
        return
    parts, ladj = [train[:, x], validation[:, x], test[:, x]], np.zeros(len(test))
    if subject.unbounded is not None:
        # The noise of the test rows is the density's own; others must have another.
        parts[0], _ = subject.unbounded(train, 1)
        parts[1], _ = subject.unbounded(validation, 2)
        parts[2], ladj = subject.unbounded(test, 0)
    if subject.given:
        conditions = [_dummies(subject, rows) for rows in (train, test)]
        gaussian = _gaussian(parts[0], parts[2], *conditions)
        remarks.append("A mixture and kernels know no conditions.")
    else:
        gaussian = _gaussian(parts[0], parts[2])
    if gaussian is None:
        remarks.append("The covariance of the training rows is singular: no Gaussian.")
    else:
        yield "full Gaussian", len(train), gaussian + ladj
    if subject.given:
        return
    if subject.features > WIDE:
        remarks.append(f"A mixture and kernels are left out with more than {WIDE} features.")
        return
    remarks.append(
        "The size of the mixture and the width of the kernels are those that validation rows like"
        " best."
    )
    # A mixture's estimate takes a time of the square of the features.
    some = min(len(train), FITTED if subject.features <= 20 else FITTED // 4)
    first, second, third = (part.astype(np.float64) for part in parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if len(train) > 2 * subject.features:
            mixture = choose_mixture(first[:some], second, seed)
            yield mixture.name, some, mixture.score_samples(third) + ladj
        kde = choose_kde(first[:some], second)
    yield kde.name, some, kde.score_samples(third[:JUDGED]) + ladj[:JUDGED]


def _mixed(subject: Subject, *parts: Rows) -> bool:
    """Whether rows are more than numbers without gaps."""
    columns = subject.columns[: subject.features]
    gaps = any(np.isnan(rows).any() for rows in parts)
    return gaps or bool(subject.baselines) or any(c.levels or c.atoms for c in columns)


def _gaussian(
    train: Rows, test: Rows, c_train: Rows | None = None, c_test: Rows | None = None
) -> Vector | None:
    """The log-density of a full-covariance Gaussian, given the conditions; None if singular."""

    def score(one: Rows, other: Rows) -> Vector:
        values: Vector = gaussian_log_likelihood(
            torch.from_numpy(one), torch.from_numpy(other)
        ).numpy()
        return values

    try:
        if c_train is None or c_test is None:
            return score(train, test)
        joint = score(np.hstack([train, c_train]), np.hstack([test, c_test]))
        return joint - score(c_train, c_test)
    except ValueError:
        return None


def _dummies(subject: Subject, rows: Rows) -> Rows:
    """The conditions as numbers: of a category, whether it is each of the levels but the last."""
    found = []
    for i in range(subject.features, len(subject.columns)):
        cells, levels = rows[:, i : i + 1], len(subject.columns[i].levels)
        found.append(cells == np.arange(levels - 1) if levels else cells)
    return np.hstack(found).astype(np.float32)
