"""Simulation-based calibration: where true parameters rank among samples of their posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chisquare, kstest
from torch import Tensor

from .draws import draw, numpys, pairs_of, uniform_ranks

Numbers = NDArray[np.float64]

SIGNIFICANT = 0.05
"""The p-value below which a verdict is anything but "calibrated"."""

EACH, MOST = 10, 20
"""The fewest ranks that a bar expects, and the most bars."""


@dataclass(frozen=True)
class Ranks:
    r"""The ranks of true parameters among samples of their posteriors; all uniform if it is right.

    Args:
        names: What the parameters are called.
        ranks: How many of the samples are below the true value, 0 to `number`, shape (N, D).
        number: How many samples of each posterior there were.
        uniform: The ranks spread over the cells of (0, 1), shape (N, D).
    """

    names: tuple[str, ...]
    ranks: NDArray[np.int64] = field(repr=False)
    number: int
    uniform: Numbers = field(repr=False)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many ranks are in each of B equal bars, shape (D, B)."""
        bars = int(np.clip(len(self.uniform) // EACH, 2, MOST))
        return np.stack([np.histogram(one, bars, (0, 1))[0] for one in self.uniform.T])

    @property
    def ks(self) -> Numbers:
        """The p-value of the Kolmogorov-Smirnov test that ranks are uniform, shape (D,)."""
        return np.array([kstest(one, "uniform").pvalue for one in self.uniform.T])

    @property
    def chi2(self) -> Numbers:
        """The p-value of the chi-square test that all bars are equal, shape (D,)."""
        return np.array([chisquare(counts).pvalue for counts in self.counts])

    @property
    def p_values(self) -> Numbers:
        """The smaller p-value of each parameter, times all tests there are (Bonferroni), (D,)."""
        found: Numbers = 2 * len(self.names) * np.minimum(self.ks, self.chi2)
        return found.clip(max=1)

    @property
    def c2st(self) -> Numbers:
        """How well a classifier tells ranks from uniform numbers, about 0.5 if it cannot; (D,).

        It calls those bars ranks that hold more than their share of one half of the ranks, is
        tested on the other half, and the other way round.
        """
        bars = self.counts.shape[1]
        place = np.minimum((self.uniform * bars).astype(np.int64), bars - 1)
        halves = place[::2], place[1::2]
        return (_accuracy(*halves, bars) + _accuracy(*halves[::-1], bars)) / 2

    @property
    def shift(self) -> Numbers:
        r"""How far the mean rank is off the middle, in standard errors, shape (D,).

        .. math:: \sqrt{12 N} \, (\bar u - 1/2)

        Below zero, true values rank low: the posterior is too high.
        """
        found: Numbers = (self.uniform.mean(0) - 1 / 2) * np.sqrt(12 * len(self.uniform))
        return found

    @property
    def spread(self) -> Numbers:
        r"""How far the variance of the ranks is off that of uniform ones, in standard errors; (D,).

        .. math:: \sqrt{180 N} \, \big(\overline{(u - 1/2)^2} - 1/12\big)

        Above zero, true values rank at the ends: the posterior is too narrow.
        """
        squares = np.square(self.uniform - 1 / 2).mean(0)
        found: Numbers = (squares - 1 / 12) * np.sqrt(180 * len(self.uniform))
        return found

    @property
    def verdicts(self) -> tuple[str, ...]:
        """One a parameter: calibrated, too narrow, wide, high or low; else not uniform."""
        each = zip(self.p_values, self.shift, self.spread, strict=True)
        return tuple(_verdict(*one) for one in each)

    def __str__(self) -> str:
        head = f"ranks of {len(self.ranks):,} true parameters among {self.number:,} samples each"
        each = zip(self.names, self.verdicts, self.p_values, strict=True)
        return "\n".join([head, *(f"{name}: {what}, p = {p:.2g}" for name, what, p in each)])


def sbc(
    posterior: Any,
    theta: ArrayLike | Tensor,
    x: ArrayLike | Tensor,
    *,
    n: int = 1000,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Ranks:
    r"""Simulation-based calibration: ranks true parameters among samples of their posteriors.

    .. math:: r_{ij} = \#\{s \le n : \theta_{sj} < \theta^*_{ij}\}, \qquad
        \theta_s \sim q(\theta \mid x_i), \quad x_i \sim p(x \mid \theta^*_i)

    With :math:`\theta^*_i` from the prior, ranks are uniform on 0 to n if q is the posterior. They
    are too if q is the prior whatever x is, which :func:`expected_coverage` does not tell either.

    Args:
        posterior: What has `sample(shape, x=...)`, or `sample_batched(shape, x)`: ours, or sbi's.
        theta: Parameters drawn from the prior, shape (N, D).
        x: What was simulated of each, shape (N, ...); simulations that the fit has not seen.
        n: Samples of each posterior.
        names: What the parameters are called.
        seed: Seed of all that is drawn; torch's own state is left alone.

    Raises:
        ValueError: If shapes do not fit, or parameters are not finite.

    References:
        | Validating Bayesian Inference Algorithms with Simulation-Based Calibration (Talts et al.,
          2018), algorithm 1
        | https://arxiv.org/abs/1804.06788

    Example:
        >>> import torch
        >>> class Narrow:  # the posterior is N(x / 2, 1 / 2)
        ...     def sample(self, shape, x):
        ...         return x / 2 + 0.4 * torch.randn(*shape, 1)
        >>> theta = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> x = theta + torch.randn(500, 1, generator=torch.Generator().manual_seed(1))
        >>> print(sbc(Narrow(), theta, x, n=200))
        ranks of 500 true parameters among 200 samples each
        parameter 1: too narrow, p = ...
    """
    theta, x = pairs_of(theta, x)
    names = names_of(names, theta.shape[1], "parameter")
    samples = draw(posterior, x, n, theta.shape[1], seed)
    less, equal = (samples < theta).sum(0), (samples == theta).sum(0)
    uniform = uniform_ranks(less, equal, n, numpys(seed))
    return Ranks(names, np.floor(uniform * (n + 1)).astype(np.int64), n, uniform)


def names_of(names: Sequence[str] | None, number: int, what: str) -> tuple[str, ...]:
    """The names given, or numbers from one."""
    if names is None:
        return tuple(f"{what} {i + 1}" for i in range(number))
    if len(names) != number:
        raise ValueError(f"names: expected {number}, one for each {what}, got {len(names)}")
    return tuple(names)


def _accuracy(seen: NDArray[np.int64], left: NDArray[np.int64], bars: int) -> Numbers:
    found = []
    for one, other in zip(seen.T, left.T, strict=True):
        chosen = np.bincount(one, minlength=bars) > len(one) / bars
        found.append((1 + chosen[other].mean() - chosen.mean()) / 2)
    return np.array(found)


def _verdict(p: float, shift: float, spread: float) -> str:
    if p >= SIGNIFICANT:
        return "calibrated"
    if max(abs(shift), abs(spread)) < 2:
        return "not uniform"
    if abs(spread) > abs(shift):
        return "too narrow" if spread > 0 else "too wide"
    return "too high" if shift < 0 else "too low"
