"""Mixtures of Gaussians that double in number, fitted by expectation-maximisation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from maskedflow.data.split import effective
from maskedflow.kernels.gaussians import add_moments, invert, log_densities

from .missing import observed_features
from .mixture import MixtureOfRegressions, marginal

PRIORS: tuple[float, ...] = (0.0, 1.0, 4.0, 16.0, 64.0)
"""The rows that a component may borrow from the shape of all, of which other rows choose."""
MARGINS: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
"""How much wider components are made than their rows are, of which other rows choose, too."""
_STEPS, _SMALL_GAIN, _SETTLED = 30, 1e-3, 3
"""The most steps after a doubling, the gain that is worth another, and steps with a new prior."""
_RIDGE, _RIDGE_OF_FEW, _ROUNDING = 1e-10, 1e-6, 1e-14
"""What is added to a covariance: in units of its own scale, or of the whole where rows are few; and
in units of its moments before they are centred, of which sums know no more digits."""
_ROWS = 4
"""The rows for each number of a component's mean that show how narrow it is."""
FEWEST = 2 * _ROWS
"""The rows for each number of a component's mean without which it does not split."""
_SHRINK = 1e-6
"""What is added to the square of a context, as a share of it: one-hot vectors add up to 1."""
_PAIR = 12
"""The operations that a pair of a row and a component costs beside its products."""

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Rows x, (n, D), their weights, (n,), and contexts, (n, C), if there are any."""

    x: Tensor
    weight: Tensor
    c: Tensor | None = None


@dataclass(frozen=True)
class Grown:
    """A mixture, its prior and margin, its score, and what it has cost.

    The score is the mean log-density of rows that judge it. The work is that of all steps
    since the search began, in multiplications.
    """

    mixture: MixtureOfRegressions
    smoothing: tuple[float, float]
    score: float
    work: float


@dataclass(frozen=True)
class _Components:
    """The parameters of K components; `gates`, (C, K), are log-frequencies of codes."""

    logits: _Array
    loc: _Array
    factors: _Array
    slopes: _Array
    gates: _Array


@dataclass(frozen=True)
class _Pattern:
    """The rows that have the same features, `here`."""

    here: NDArray[np.int64]
    x: _Array
    c: _Array
    mass: _Array


@dataclass(frozen=True)
class _Sums:
    """What a maximisation needs to know of the rows."""

    moments: _Array
    squares: _Array
    counts: _Array
    log_prob: float
    pairs: int


def grow(
    sample: Sample,
    others: Sample,
    *,
    levels: int = 0,
    slopes: bool = False,
    present: Sequence[int | None] | None = None,
    smoothing: tuple[float, float] | None = None,
) -> Iterator[Grown]:
    r"""Fits mixtures of 2, 4, 8, ... components, each from the one before.

    A component splits in the middle of its principal axis, unless it has too few rows, and
    expectation-maximisation goes on from there. To a component's :math:`n_k` rows it adds
    :math:`\nu` of the shape that all have in common, of its own size,

    .. math:: \Sigma_k = \frac{n_k S_k + \nu \, s_k \bar{S}}{n_k + \nu}, \quad
        s_k = \min(1, \tfrac{1}{D} \mathrm{tr}(\bar{S}^{-1} S_k)),

    with the :math:`\nu` under which other rows are likeliest, and
    :math:`10^{-10} \min(1, \mathrm{tr}(\Sigma_k) / D)` on its diagonal: clusters that are far apart
    may be as narrow as they are, and as long, unless there are few rows. It ends when nothing can
    split; rows too few for two components get one.

    Args:
        sample: The rows, about standardised.
        others: Rows that choose.
        levels: How many dimensions of the context, the first, are the one-hot vectors of codes; the
            weights depend on these by their frequencies in each component.
        slopes: Whether the means follow the context, as they do for codes too.
        present: For each feature the dimension of the context that says whether it is observed.
        smoothing: The prior and the margin of a mixture that was grown; None if others choose them.

    References:
        | Maximum Likelihood from Incomplete Data via the EM Algorithm (Dempster et al., 1977)
        | Supervised Learning from Incomplete Data via an EM Approach (Ghahramani and Jordan, 1993)
        | Bayesian Regularization for Normal Mixture Estimation (Fraley and Raftery, 2007)
    """
    present = present or (None,) * sample.x.shape[1]
    mass = sample.weight.double() / sample.weight.sum() * effective(sample.weight)
    parts, judges = _patterns(sample, mass, present), _patterns(others, others.weight, present)
    search = _Search(parts, judges, levels, slopes, smoothing)
    splits = search.split()
    if not splits:
        yield search.grown(present)
    while splits:
        search.improve()
        yield search.grown(present)
        splits = search.split()


class _Search:
    """The state of a growing mixture."""

    def __init__(
        self,
        parts: list[_Pattern],
        judges: list[_Pattern],
        levels: int,
        slopes: bool,
        smoothing: tuple[float, float] | None,
    ) -> None:
        self.parts, self.judges = parts, judges
        self.priors, self.widths = PRIORS, MARGINS
        if smoothing is not None:
            self.priors, self.widths = ((one,) for one in smoothing)
        self.features = max(part.here.max(initial=-1) for part in parts) + 1
        self.context = parts[0].c.shape[1] if slopes else 0
        c, mass = (np.concatenate([getattr(part, f) for part in parts]) for f in ("c", "mass"))
        self.rows = mass.sum()
        self.middle = mass @ c / self.rows
        self.margins = self.middle[:levels, None]
        eye, self.work, self.score = np.eye(self.features), 0.0, -math.inf
        self.prior, self.margin = self.priors[0], self.widths[0]
        self.components = _Components(
            np.zeros(1),
            np.zeros((1, self.features)),
            eye[None],
            np.zeros((1, self.features, self.context)),
            np.zeros((levels, 1)),
        )
        with threadpool_limits(1, user_api="blas"):
            self.improve()

    def split(self) -> bool:
        """Makes two components of each that has rows enough; says whether there were any."""
        old = self.components
        size = self.features + self.context + 1
        large = np.exp(old.logits) * self.rows >= FEWEST * size
        if not large.any():
            return False
        where = np.concatenate([np.arange(len(large)), np.flatnonzero(large)])
        covariance = old.factors @ old.factors.swapaxes(1, 2)
        with threadpool_limits(1, user_api="blas"):
            values, vectors = np.linalg.eigh(covariance)
        # The halves of a Gaussian: their distance from its mean, and what that leaves.
        move = np.sqrt(2 / math.pi * values[:, -1:]) * vectors[:, :, -1] * large[:, None]
        covariance = covariance - move[:, :, None] * move[:, None, :]
        sign = np.where(np.arange(len(where)) < len(large), -1, 1)[:, None]
        self.components = _Components(
            old.logits[where] - math.log(2) * large[where],
            old.loc[where] + sign * move[where],
            np.linalg.cholesky(covariance)[where],
            old.slopes[where],
            old.gates[:, where],
        )
        return True

    def improve(self) -> None:
        """Goes on until little is gained, and chooses a prior for some more steps."""
        with threadpool_limits(1, user_api="blas"):
            before = -math.inf
            for _ in range(_STEPS):
                sums = self.expect()
                if sums.log_prob - before < _SMALL_GAIN:
                    break
                before = sums.log_prob
                self.components = self.maximise(sums, self.prior)
            made = {prior: self.maximise(sums, prior) for prior in self.priors}
            best = self.best(made)
            if best != self.prior:
                self.prior, self.components = best, made[best]
                for _ in range(_SETTLED):
                    self.components = self.maximise(self.expect(), best)
            margins = dict.fromkeys(self.widths, self.components)
            self.margin = self.best(margins, margins=True)

    def best(self, made: dict[float, _Components], *, margins: bool = False) -> float:
        """Which of some components other rows like best; of equals, the first."""
        scores = {
            key: self.judge(self.widened(one, key if margins else self.margin))
            for key, one in made.items()
        }
        found = max(scores, key=lambda key: scores[key])
        self.score = scores[found]
        return found

    def widened(self, one: _Components, margin: float) -> _Components:
        """The components as wide as new rows will be, which had no say in the covariances."""
        rows = np.exp(one.logits) * self.rows + self.prior
        size = self.features + self.context + 3
        return replace(one, factors=one.factors * np.sqrt(1 + margin * size / rows)[:, None, None])

    def expect(self) -> _Sums:
        """Runs through all rows."""
        one = self.components
        components, context = len(one.logits), self.context
        size = 1 + context + self.features
        moments = np.zeros((components, size, size))
        squares, counts = np.zeros(components), np.zeros(one.gates.shape)
        total, pairs = 0.0, 0
        for part in self.parts:
            loc, factors, slopes = marginal(one.loc, one.factors, one.slopes, part.here)
            inverse = invert(factors)
            found = np.zeros((components, *[1 + context + len(part.here)] * 2))
            log_prob, count = add_moments(
                part.x,
                part.c,
                part.mass,
                one.logits,
                one.gates,
                loc,
                inverse,
                slopes,
                self.middle,
                found,
                squares,
                counts,
            )
            total, pairs = total + log_prob, pairs + count
            found += np.tril(found, -1).swapaxes(1, 2)
            moments += self.completed(found, part.here, inverse)
            self.work += self.work_of(part) + count * size**2
        return _Sums(moments, squares, counts, total / self.rows, pairs)

    def completed(self, moments: _Array, here: NDArray[np.int64], inverse: _Array) -> _Array:
        """The moments with the expected ones of features that are absent."""
        if len(here) == self.features:
            return moments
        lead = 1 + self.context
        factors = self.components.factors
        covariance = factors @ factors.swapaxes(1, 2)
        away = np.setdiff1d(np.arange(self.features), here)
        cross = covariance[:, away[:, None], here]
        slopes = cross @ inverse.swapaxes(1, 2) @ inverse
        fill = np.zeros((len(factors), lead + self.features, lead + len(here)))
        fill[:, range(lead), range(lead)] = 1
        fill[:, lead + here, lead + np.arange(len(here))] = 1
        fill[:, lead + away, lead:] = slopes
        moments = fill @ moments @ fill.swapaxes(1, 2)
        rest = covariance[:, away[:, None], away] - slopes @ cross.swapaxes(1, 2)
        corner = lead + away[:, None], lead + away
        moments[(slice(None), *corner)] += moments[:, :1, :1] * rest
        return moments

    def maximise(self, sums: _Sums, prior: float) -> _Components:
        """The components that are likeliest if rows belong to them in such parts."""
        old, context = self.components, self.context
        n = sums.moments[:, 0, 0].clip(min=1e-12)
        raw = sums.moments[:, 1 + context :, 1 + context :].trace(axis1=1, axis2=2) / n
        first = sums.moments[:, 0, 1:] / n[:, None]
        second = sums.moments[:, 1:, 1:] / n[:, None, None] - first[:, :, None] * first[:, None]
        share, borrowed = n / n.sum(), (prior / n)[:, None, None]
        loc, slopes = old.loc + first[:, context:], old.slopes
        covariance = second[:, context:, context:]
        if context:
            square, cross = second[:, :context, :context], second[:, context:, :context]
            whole = np.tensordot(share, square, 1)
            common = np.tensordot(share, slopes, 1)
            small = _SHRINK * np.eye(context)
            target = cross + borrowed * (common - slopes) @ whole - _SHRINK * slopes
            change = np.linalg.solve(square + borrowed * whole + small, target.swapaxes(1, 2))
            change = change.swapaxes(1, 2)
            half = change @ cross.swapaxes(1, 2)
            covariance = covariance - half - half.swapaxes(1, 2)
            covariance = covariance + change @ square @ change.swapaxes(1, 2)
            moved = (change @ (self.middle + first[:, :context])[:, :, None])[:, :, 0]
            loc, slopes = loc - moved, slopes + change
        enough = n**2 / sums.squares.clip(min=1e-300) >= _ROWS * (self.features + context + 1)
        covariance = self.regularised(covariance, n, enough, prior)
        covariance = covariance + _ROUNDING * raw[:, None, None] * np.eye(self.features)
        factors = cast(_Array, np.linalg.cholesky(covariance))
        return _Components(np.log(share), loc, factors, slopes, self.frequencies(sums.counts, n))

    def regularised(self, covariance: _Array, n: _Array, enough: Any, prior: float) -> _Array:
        """Covariances that are no narrower than rows can show."""
        eye = np.eye(self.features)
        scale = np.minimum(1, covariance.trace(axis1=1, axis2=2) / self.features)
        ridge = np.where(enough & (scale > 0), _RIDGE * scale, _RIDGE_OF_FEW)
        if prior:
            whole = np.tensordot(n / n.sum(), covariance, 1) + _RIDGE_OF_FEW**2 * eye
            size = np.linalg.solve(whole, covariance).trace(axis1=1, axis2=2) / self.features
            target = size.clip(0, 1)[:, None, None] * whole  # rounding may make it negative
            rows = n[:, None, None]
            covariance = (rows * covariance + prior * target) / (rows + prior)
        return covariance + ridge[:, None, None] * eye

    def frequencies(self, counts: _Array, n: _Array) -> _Array:
        """The logarithms of the levels' frequencies; a level that no row has tells nothing."""
        found = (counts + self.margins) / (n + 1)
        return np.log(np.where(self.margins > 0, found, 1))

    def judge(self, one: _Components) -> float:
        """The mean log-density of other rows."""
        total, mass = 0.0, 0.0
        for part in self.judges:
            loc, factors, slopes = marginal(one.loc, one.factors, one.slopes, part.here)
            inverse = invert(factors)
            log_probs, _ = log_densities(
                part.x, part.c, one.logits, one.gates, loc, inverse, slopes
            )
            total, mass = total + float(part.mass @ log_probs), mass + float(part.mass.sum())
            self.work += self.work_of(part)
        return total / mass

    def work_of(self, part: _Pattern) -> float:
        """The multiplications of the densities of rows, and of a pattern's factors."""
        size, components = len(part.here), len(self.components.logits)
        each = size * (size + 1) / 2 + size * self.context + len(self.components.gates) + _PAIR
        cube = 2 * self.features**3 if size < self.features else size**3 / 6
        return components * (len(part.x) * each + cube)

    def grown(self, present: Sequence[int | None]) -> Grown:
        """The mixture as it is now."""
        one = self.widened(self.components, self.margin)
        parts = one.logits, one.loc, one.factors, one.slopes, one.gates.T
        logits, loc, factors, slopes, gates = (torch.from_numpy(part.copy()) for part in parts)
        mixture = MixtureOfRegressions(
            logits,
            loc,
            factors,
            slopes if self.context else None,
            gates if len(one.gates) else None,
            present,
        )
        return Grown(mixture, (self.prior, self.margin), self.score, self.work)


def _patterns(sample: Sample, mass: Tensor, present: Sequence[int | None]) -> list[_Pattern]:
    """The rows, sorted by what is observed of them; those of which nothing is are left out."""
    x = sample.x.double().numpy()
    c = np.zeros((len(x), 0)) if sample.c is None else sample.c.double().numpy()
    observed = observed_features(present, sample.c)
    if observed is None:
        which, kinds = np.zeros(len(x), dtype=np.int64), np.ones((1, x.shape[1]), dtype=bool)
    else:
        kinds, which = np.unique(observed.numpy(), axis=0, return_inverse=True)
        which = which.reshape(-1)
    found = []
    for number, kind in enumerate(kinds):
        here, rows = np.flatnonzero(kind), np.flatnonzero(which == number)
        if len(here):
            part = np.ascontiguousarray(x[np.ix_(rows, here)])
            found.append(
                _Pattern(here, part, np.ascontiguousarray(c[rows]), mass.double().numpy()[rows])
            )
    return found
