"""Can a classifier tell samples from data?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from maskedflow.runs import Mean

from .subject import Rows, Subject

__all__ = ["TwoSample", "area", "two_sample_test"]

NUMBERS = 600_000
"""The most cells of data, and of samples, that the classifier sees; more take a minute."""

FOLDS, LEAST = 5, 50

ALONE, FEW = 40, 2000
"""The most columns, and rows of each kind, for which each column is tried alone."""


@dataclass(frozen=True)
class TwoSample:
    """How well a classifier tells samples from data; one half is by guessing.

    Args:
        accuracy: The share of rows that it tells right.
        auc: The chance that it finds a sample likelier to be one than a row of the data.
        rows: The number of rows of each kind.
        telling: The columns that each alone tell samples from data, and with what accuracy, those
            that tell most first; at most five.
    """

    accuracy: Mean
    auc: Mean
    rows: int
    telling: list[tuple[str, Mean]]


def two_sample_test(subject: Subject, data: Rows, samples: Rows, seed: int = 0) -> TwoSample | None:
    """Trains gradient-boosted trees to tell samples from data, and tests them by cross-validation.

    Args:
        subject: The density, for which columns are categories.
        data: Rows that it was not trained on.
        samples: Rows drawn from it.
        seed: Seed of the folds.

    Returns:
        What came of it, with two standard errors; None if there are too few rows to tell.

    References:
        | Revisiting Classifier Two-Sample Tests (Lopez-Paz and Oquab, 2017)
        | https://arxiv.org/abs/1610.06545
    """
    rows = min(len(data), len(samples), max(LEAST, NUMBERS // len(subject.columns)))
    if rows < LEAST:
        return None
    chance = _chances(subject, range(len(subject.columns)), data[:rows], samples[:rows], seed)
    auc = area(chance[rows:], chance[:rows])
    telling: list[tuple[str, Mean]] = []
    if 1 < subject.features <= ALONE and subject.image is None:
        few = min(rows, FEW)
        for i in range(subject.features):
            alone = _accuracy(_chances(subject, [i], data[:few], samples[:few], seed))
            # Three standard errors: there are many columns.
            if alone.value - 0.5 > 1.5 * alone.error:
                telling.append((subject.columns[i].name, alone))
    telling.sort(key=lambda one: -one[1].value)
    return TwoSample(_accuracy(chance), auc, rows, telling[:5])


def _chances(
    subject: Subject, columns: Sequence[int], data: Rows, samples: Rows, seed: int
) -> NDArray[np.float64]:
    """How likely each row of the data, and then each sample, is to be a sample; by others told."""
    both = np.concatenate([data, samples])[:, columns].astype(np.float64)
    drawn = np.repeat([0, 1], len(data))
    kinds = [subject.columns[i] for i in columns]
    nominal = [i for i, c in enumerate(kinds) if 0 < len(c.levels) <= 255 and not c.ordered]
    classifier = HistGradientBoostingClassifier(
        categorical_features=nominal or None, early_stopping=True, random_state=seed
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    found: NDArray[np.float64] = cross_val_predict(
        classifier, both, drawn, cv=folds, method="predict_proba"
    )[:, 1]
    return found


def _accuracy(chance: NDArray[np.float64]) -> Mean:
    drawn = np.repeat([0, 1], len(chance) // 2)
    right = float(((chance > 0.5) == drawn).mean())
    return Mean(right, 2 * math.sqrt(right * (1 - right) / len(drawn)))


def area(high: NDArray[np.float64], low: NDArray[np.float64]) -> Mean:
    r"""The area under the ROC curve, :math:`P(h > l) + P(h = l) / 2`, with two standard errors.

    References:
        Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves
        (DeLong et al., 1988), https://doi.org/10.2307/2531595

    Example:
        >>> area(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0]))
        Mean(value=0.75, error=0.57...)
    """
    n, m = len(high), len(low)
    ranks = rankdata(np.concatenate([high, low]))
    beaten = (ranks[:n] - rankdata(high)) / m
    lost = 1 - (ranks[n:] - rankdata(low)) / n
    variance = beaten.var(ddof=1) / n + lost.var(ddof=1) / m
    return Mean(float(beaten.mean()), 2 * math.sqrt(variance))
