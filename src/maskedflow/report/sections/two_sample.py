"""Can a classifier tell samples from data?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

from maskedflow.report.format import listed, no_difference, shares
from maskedflow.report.section import Evidence, Section
from maskedflow.runs import Mean

NUMBERS = 600_000
"""The most cells of data, and of samples, that the classifier sees; more take a minute."""

FOLDS, LEAST = 5, 50

ALONE, FEW = 40, 2000
"""The most columns, and rows of each kind, for which each column is tried alone."""


@dataclass(frozen=True)
class TwoSample(Section):
    """How well gradient-boosted trees tell samples from data; one half is by guessing.

    References:
        | Revisiting Classifier Two-Sample Tests (Lopez-Paz and Oquab, 2017)
        | https://arxiv.org/abs/1610.06545
    """

    id, title, place = "test", "Two-sample test", 80
    accuracy: Mean
    auc: Mean  # the chance that a sample is found likelier to be one than a row of the data
    rows: int  # of each kind
    giveaways: list[tuple[str, Mean]]  # columns that alone tell samples, with what accuracy
    unit: str = "row"

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        """Trains the trees and tests them by cross-validation; None if there are too few rows."""
        subject, test, samples = evidence.subject, evidence.data, evidence.samples
        rows = min(len(test), len(samples), max(LEAST, NUMBERS // len(subject.columns)))
        if rows < LEAST:
            return None
        chance = _chances(evidence, range(len(subject.columns)), rows)
        auc = area(chance[rows:], chance[:rows])
        giveaways: list[tuple[str, Mean]] = []
        if 1 < subject.features <= ALONE and subject.image is None:
            for i in range(subject.features):
                alone = _accuracy(_chances(evidence, [i], min(rows, FEW)))
                # Three standard errors: there are many columns.
                if alone.value - 0.5 > 1.5 * alone.error:
                    giveaways.append((subject.columns[i].name, alone))
        giveaways.sort(key=lambda one: -one[1].value)
        return cls(_accuracy(chance), auc, rows, giveaways[:5], subject.unit)

    @property
    def finding(self) -> str:
        """Whether samples can be told from data, and how often."""
        accuracy, auc = self.accuracy, self.auc
        columns = f" in {listed([name for name, _ in self.giveaways])}" if self.giveaways else ""
        if accuracy.value - accuracy.error > 0.5:
            return (
                f"Samples differ from data{columns}; a classifier tells them apart"
                f" {accuracy.value:.0%} of the time ({_ends(accuracy)})."
            )
        if auc.value - auc.error > 0.5:
            return (
                f"Samples differ from data{columns}; of one sample and one {self.unit} of data a"
                f" classifier finds which is which {auc.value:.0%} of the time ({_ends(auc)})."
            )
        # A difference of twice the error is beyond it nearly always.
        return no_difference(f"{self.rows:,} {self.unit}s", 2 * accuracy.error, 0.5, percent=True)

    @property
    def headline(self) -> list[tuple[str, str, str]]:
        """The accuracy, for the head of the page."""
        accuracy = f"{100 * self.accuracy.value:.1f}%"
        return [("Classifier’s accuracy", accuracy, "50%: samples pass for data")]


def _chances(evidence: Evidence, columns: Sequence[int], rows: int) -> NDArray[np.float64]:
    """How likely each row of the data, and then each sample, is a sample, judged by the others."""
    both = np.concatenate([evidence.data[:rows], evidence.samples[:rows]])
    drawn, seed = np.repeat([0, 1], rows), evidence.seed
    kinds = [evidence.subject.columns[i] for i in columns]
    nominal = [i for i, c in enumerate(kinds) if 0 < len(c.levels) <= 255 and not c.ordered]
    classifier = HistGradientBoostingClassifier(
        categorical_features=nominal or None, early_stopping=True, random_state=seed
    )
    folds, copies = StratifiedKFold(FOLDS, shuffle=True, random_state=seed), None
    if evidence.weight is not None:  # a row that is drawn twice may not be known by its copy
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        copies = np.concatenate([evidence.places[:rows], np.arange(-rows, 0)])
    found: NDArray[np.float64] = cross_val_predict(
        classifier,
        both[:, columns].astype(np.float64),
        drawn,
        groups=copies,
        cv=folds,
        method="predict_proba",
    )[:, 1]
    return found


def _accuracy(chance: NDArray[np.float64]) -> Mean:
    drawn = np.repeat([0, 1], len(chance) // 2)
    right = float(((chance > 0.5) == drawn).mean())
    return Mean(right, 2 * math.sqrt(right * (1 - right) / len(drawn)))


def _ends(mean: Mean) -> str:
    return shares(mean.value - mean.error, mean.value + mean.error)


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
