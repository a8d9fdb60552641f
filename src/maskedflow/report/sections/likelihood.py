"""Likelihood of test rows, beside what a density has to beat."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from maskedflow.data import choose_kde, choose_mixture, conditional_gaussian, independent
from maskedflow.plot.ticks import signed
from maskedflow.report.format import interval, no_difference, rounded
from maskedflow.report.section import Evidence, Rows, Section, Subject
from maskedflow.runs import Likelihood, Mean

FITTED = 10_000
"""The most training rows that baselines are fitted to, or ten times the features if more."""

WIDE = 100
"""The most features for mixtures and kernels: with more, they take minutes and are no match."""

KERNEL_ROWS = 2_000
"""The most test rows that kernels are evaluated at: each takes a time of all training rows."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Likelihoods(Section):
    """Those of the subject, first, and of the baselines."""

    id, title, place = "likelihood", "Likelihood", 20
    found: list[Likelihood]
    remarks: list[str]  # how they were chosen, or why one is missing, a sentence each
    classes: Sequence[Likelihood] = ()  # of images with classes
    unit: str = "row"

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        """Compares the log-likelihoods of test rows with those of baselines.

        Of a conditional density the only baseline is the conditional Gaussian,
        log N(x, c) - log N(c), or a Gaussian that the subject brings along. Where categories, gaps
        or atoms are among the numbers, there are independent columns and what the subject brings
        along. Without training rows there is none.
        """
        subject, log_prob = evidence.subject, torch.from_numpy(evidence.log_prob)
        features = subject.features
        own = len(evidence.train) if subject.fitted is None else subject.fitted
        weight = None if evidence.weight is None else torch.from_numpy(evidence.weight)
        found = [Likelihood.of(subject.name, features, log_prob, fitted=own, weight=weight)]
        remarks: list[str] = []
        for name, fitted, other in _baselines(evidence, remarks):
            scores, n = torch.from_numpy(other), len(other)
            share = None if weight is None else weight[:n]
            found.append(Likelihood.of(name, features, scores, log_prob[:n], fitted, share))
        labels = () if evidence.labels is None else evidence.labels
        classes = [
            Likelihood.of(str(label), features, log_prob[labels == label])
            for label in np.unique(labels).tolist()
        ]
        return cls(found, remarks, classes, subject.unit)

    @property
    def best(self) -> Likelihood | None:
        """The baseline that is least behind, on the rows that it was evaluated at."""

        def behind(one: Likelihood) -> float:
            return one.nll.value if one.behind is None else one.behind.value

        return min(self.found[1:], key=behind, default=None)

    @property
    def finding(self) -> str:
        """Whether the density is better than the best of the others, and by how much."""
        own, best = self.found[0], self.best
        if best is None:
            return ""
        apart = best.behind or Mean(
            best.nll.value - own.nll.value, math.hypot(own.nll.error, best.nll.error)
        )
        units = f"nats per {self.unit}"
        if abs(apart.value) > apart.error:
            size, word = abs(apart.value), "better" if apart.value > 0 else "worse"
            ends = interval(size - apart.error, size + apart.error)
            return (
                f"The density is {word} than the best of the others, {best.name}, by"
                f" {rounded(size)} {units} ({ends})."
            )
        rows = f"{best.rows:,} {self.unit}s"
        return no_difference(rows, 2 * apart.error, math.inf, f" {units}", what=f"from {best.name}")

    @property
    def headline(self) -> list[tuple[str, str, str]]:
        """The NLL and that of the best baseline, for the head of the page."""
        own, best = self.found[0], self.best
        found = [("NLL", signed(own.nll), f"nats per {self.unit}")]
        if self.unit == "image":
            found.append(("NLL per dimension", str(own.bpd), "bits"))
        if best is not None:
            found.append(("Best baseline", signed(best.nll), best.name))
        return found


def _baselines(evidence: Evidence, remarks: list[str]) -> Iterator[tuple[str, int, Vector]]:
    """Names, numbers of rows to fit, log-likelihoods of the test rows or of the first of them."""
    subject, validation, test = evidence.subject, evidence.validation, evidence.test
    chosen = np.random.default_rng(evidence.seed).permutation(len(evidence.train))
    chosen = np.sort(chosen[: max(FITTED, 10 * subject.features)])
    train, (weight, judges, _) = evidence.train[chosen], evidence.weights
    weight = None if weight is None else weight[chosen]
    if not len(train):
        remarks.append(
            "Other densities need training rows to be fitted to, of which none were given."
        )
        return
    if subject.gaussian is not None:
        name, score = subject.gaussian
        yield name, len(train), score(train, test, weight)
        remarks.append("A mixture and kernels know no errors.")
        return
    x = slice(0, subject.features)
    if _mixed(subject, train, test):
        yield (
            "independent columns",
            len(train),
            independent(subject.columns[x], train, test, weight),
        )
        for name, score in subject.baselines.items():
            yield name, len(train), score(train, test, weight)
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
    first, second, third = parts
    given = [_dummies(subject, rows) if subject.given else None for rows in (train, test)]
    both = torch.from_numpy(first), torch.from_numpy(third)
    mass = None if weight is None else torch.from_numpy(weight)
    gaussian = conditional_gaussian(both, (given[0], given[1]), mass)
    if subject.given:
        remarks.append("A mixture and kernels know no conditions.")
    if gaussian is None:
        remarks.append("The covariance of the training rows is singular: no Gaussian.")
    else:
        yield "full Gaussian", len(train), gaussian.numpy() + ladj
    if subject.given:
        return
    if subject.features > WIDE:
        remarks.append(f"A mixture and kernels are left out with more than {WIDE} features.")
        return
    remarks.append(
        "The size of the mixture and the width of the kernels are chosen on the validation rows."
    )
    # A mixture's estimate takes a time of the square of the features.
    some = min(len(train), FITTED if subject.features <= 20 else FITTED // 4)
    first, second, third = (part.astype(np.float64) for part in parts)
    counts = None if weight is None else weight[:some], judges
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if len(train) > 2 * subject.features:
            mixture = choose_mixture(first[:some], second, evidence.seed, counts)
            yield mixture.name, some, mixture.score_samples(third) + ladj
        kde = choose_kde(first[:some], second, counts)
    yield kde.name, some, kde.score_samples(third[:KERNEL_ROWS]) + ladj[:KERNEL_ROWS]


def _mixed(subject: Subject, *parts: Rows) -> bool:
    """Whether rows are more than numbers without gaps."""
    columns = subject.columns[: subject.features]
    gaps = any(np.isnan(rows).any() for rows in parts)
    return gaps or bool(subject.baselines) or any(c.levels or c.atoms for c in columns)


def _dummies(subject: Subject, rows: Rows) -> Tensor:
    """The conditions as numbers: of a category, whether it is each of the levels but the last."""
    found = []
    for i in range(subject.features, len(subject.columns)):
        cells, levels = rows[:, i : i + 1], len(subject.columns[i].levels)
        found.append(cells == np.arange(levels - 1) if levels else cells)
    return torch.from_numpy(np.hstack(found).astype(np.float32))
