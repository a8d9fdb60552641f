"""The density of one column of numbers: frequencies of values, and kernels between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Numbers = NDArray[np.float64]

CENTRES = 400
WIDTHS = (0.4, 0.2, 0.1, 0.05, 0.02)
"""Of a kernel, in standard deviations."""
SHARES = np.array([0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.995])
"""Of frequencies."""
TAIL = 0.01
"""The share of a Cauchy density, which nothing is too far away for."""


@dataclass(frozen=True)
class Kernels:
    """Gaussian kernels of one width, on a line or on its inverse hyperbolic sine, and a tail."""

    loc: float
    scale: float
    curved: bool
    centres: Numbers
    width: float

    def forward(self, x: Numbers) -> Numbers:
        z = (x - self.loc) / self.scale
        return np.arcsinh(z) if self.curved else z

    def cdf(self, x: Numbers) -> Numbers:
        z = self.forward(x)
        near = _mean(lambda part: ndtr((part - self.centres) / self.width), z)
        return (1 - TAIL) * near + TAIL * (0.5 + np.arctan(z) / np.pi)

    def pdf(self, x: Numbers) -> Numbers:
        z = self.forward(x)

        def kernel(part: Numbers) -> Numbers:
            return np.exp(-0.5 * ((part - self.centres) / self.width) ** 2)

        near = _mean(kernel, z) / (self.width * np.sqrt(2 * np.pi))
        slope = 1 / np.hypot(1, (x - self.loc) / self.scale) if self.curved else 1.0
        return ((1 - TAIL) * near + TAIL / np.pi / (1 + z**2)) * slope / self.scale

    def mass(self, x: Numbers, step: float) -> Numbers:
        """The probability of cells of a grid."""
        return np.maximum(self.cdf(x + step / 2) - self.cdf(x - step / 2), 1e-300)


def fit_kernels(x: Numbers, *, curved: bool, width: float) -> Kernels:
    """Kernels at quantiles of x."""
    loc = float(np.median(x))
    low, high = np.quantile(x, [0.25, 0.75])
    scale = float((high - low) / 2 or x.std() or 1.0)
    z = (x - loc) / scale
    z = np.sort(np.arcsinh(z) if curved else z)
    if len(z) > CENTRES:
        z = np.quantile(z, (np.arange(CENTRES) + 0.5) / CENTRES)
    low, high = np.quantile(z, [0.05, 0.95])
    spread = (high - low) / 3.3 or z.std() or 1.0
    return Kernels(loc, scale, curved, z, width * float(spread))


def _mean(kernel: Callable[[Numbers], Numbers], z: Numbers) -> Numbers:
    parts = np.array_split(z, max(1, len(z) // 2000))
    return np.concatenate([kernel(part[:, None]).mean(1) for part in parts])


@dataclass(frozen=True)
class Margin:
    """A mixture of frequencies and kernels, on a grid of such a step; on none if it is 0."""

    step: float
    share: float
    values: Numbers
    counts: Numbers
    kernels: Kernels

    def prob(self, x: Numbers) -> Numbers:
        """The probability of cells, or the density where there is no grid."""
        if not self.step:
            return self.kernels.pdf(x)
        smooth = self.kernels.mass(x, self.step)
        return self.share * self._frequency(x) + (1 - self.share) * smooth

    def log_prob(self, x: Numbers) -> Numbers:
        """The log-density per unit."""
        return np.log(self.prob(x)) - np.log(self.step or 1.0)

    def cdf(self, x: Numbers) -> tuple[Numbers, Numbers]:
        """The probability below the cells of x, and with them."""
        if not self.step:
            upto = self.kernels.cdf(x)
            return upto, upto
        upto = self.share * self._below(x) + (1 - self.share) * self.kernels.cdf(x + self.step / 2)
        return np.maximum(upto - self.prob(x), 0.0), upto

    def _cells(self, x: Numbers) -> Numbers:
        return np.rint(x / self.step)

    def _frequency(self, x: Numbers) -> Numbers:
        cells = self._cells(x)
        place = np.searchsorted(self.values, cells).clip(max=len(self.values) - 1)
        return np.where(self.values[place] == cells, self.counts[place], 0) / self.counts.sum()

    def _below(self, x: Numbers) -> Numbers:
        total = np.concatenate([[0.0], np.cumsum(self.counts)])
        return total[np.searchsorted(self.values, self._cells(x), side="right")] / total[-1]


def fit_margin(x: Numbers, noised: Numbers, step: float) -> Margin:
    """The margin that predicts held-out numbers best."""
    order = np.random.default_rng(0).permutation(len(x))
    count = 5 if len(x) < 5000 else 10
    folds = np.array_split(order, count)[: 5 if len(x) < 5000 else 1]
    best: tuple[float, Any] = (-np.inf, None)
    for curved in (False, True):
        for width in WIDTHS:
            total: Any = 0.0
            for held in folds:
                kept = np.setdiff1d(order, held)
                kernels = fit_kernels(noised[kept], curved=curved, width=width)
                total = total + _gains(_frequencies(x[kept], kernels, step), x[held])
            total = np.atleast_1d(total)
            if total.max() > best[0]:
                best = (float(total.max()), (curved, width, SHARES[total.argmax()]))
    curved, width, share = best[1]
    found = _frequencies(x, fit_kernels(noised, curved=curved, width=width), step)
    return Margin(step, float(share), found.values, found.counts, found.kernels)


def _frequencies(x: Numbers, kernels: Kernels, step: float) -> Margin:
    if not step:
        return Margin(0.0, 0.0, x[:0], x[:0], kernels)
    values, counts = np.unique(np.rint(x / step), return_counts=True)
    return Margin(step, 1.0, values, counts, kernels)


def _gains(margin: Margin, x: Numbers) -> Numbers:
    """The total log-probability of numbers for each share of frequencies."""
    if not margin.step:
        return np.log(margin.prob(x)).sum(keepdims=True)
    smooth, frequency = margin.kernels.mass(x, margin.step), margin._frequency(x)
    mixed = SHARES[:, None] * frequency + (1 - SHARES[:, None]) * smooth
    return np.log(mixed).sum(1)


def held_out(rows: int, folds: int) -> Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to fit and rows to judge by: folds of few rows, a tenth of many."""
    order = np.random.default_rng(1).permutation(rows)
    parts = np.array_split(order, folds if folds > 1 else 10)
    for held in parts if folds > 1 else parts[:1]:
        yield np.setdiff1d(order, held), held
