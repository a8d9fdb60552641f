"""What a density estimator has to beat: a Gaussian, a mixture of them, kernels.

scikit-learn takes a second to import, so it is imported where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.float64]
Weight = NDArray[np.float64]
Weights = tuple[Weight | None, Weight | None]
"""How much each training row, and each validation row, counts; None if all are alike."""

COMPONENTS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of Gaussians that are tried, in turn, until the validation rows like them less."""

BANDWIDTHS = np.geomspace(1, 0.05, 14)
"""Widths of a kernel that are tried, in standard deviations of a feature, likewise."""

_ROWS = 2_000  # Validation rows that are scored: kernels take a time of rows times rows.

_NUMBERS = 2**22  # of a block in float64: it stays small beside the data, whatever their width


def gaussian_log_likelihood(train: Tensor, test: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""The log-likelihood of a full-covariance Gaussian fitted by maximum likelihood.

    .. math:: \log N(x; \mu, \Sigma), \quad \mu, \Sigma \text{ the mean and covariance of train}

    It is also a check of a data set's integrity: the MAF paper gives its mean for every data set.
    Costs O(n features²) in blocks of rows. Training rows count as `weight` says, shape `(n,)`.

    Returns the log-density of each of the m test rows in nats, float64, shape `(m,)`.

    Raises:
        ValueError: If the covariance is singular: a constant feature, or one that follows from
            others, or fewer rows than features.

    References:
        | Masked Autoregressive Flow (Papamakarios et al., 2017), tables 1 and 2
        | https://arxiv.org/abs/1705.07057

    Example:
        >>> x = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
        >>> round(gaussian_log_likelihood(x, torch.zeros(1, 2)).item(), 1)
        -1.8
    """
    rows = max(1, _NUMBERS // train.shape[1])
    share = train.new_ones(len(train), dtype=torch.float64) if weight is None else weight.double()
    share = share / share.sum()
    blocks = list(zip(train.split(rows), share.split(rows), strict=True))
    mean = train.new_zeros(train.shape[1], dtype=torch.float64)
    for block, part in blocks:
        mean += part @ block.double()
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=train.device)
    for block, part in blocks:
        centred = block.double() - mean
        covariance += (part[:, None] * centred).T @ centred
    factor, failure = torch.linalg.cholesky_ex(covariance)
    # How much of a feature's variance no earlier one explains; rounding leaves a little.
    unexplained = factor.diagonal().square() / covariance.diagonal()
    if failure or unexplained.min() < 1e-13:
        raise ValueError(
            f"train: the covariance of its {len(mean)} features over {len(train)} rows is "
            "singular; expected no constant and no linearly dependent feature"
        )
    constant = factor.diagonal().log().sum() + 0.5 * len(mean) * math.log(2 * math.pi)
    squares = [
        torch.linalg.solve_triangular(factor, (block.double() - mean).T, upper=False)
        .square()
        .sum(0)
        for block in test.split(rows)
    ]
    log_prob: Tensor = -0.5 * torch.cat(squares) - constant
    return log_prob


@dataclass(frozen=True)
class Baseline:
    """A density that scikit-learn's `estimator` fitted to rows less `loc` over `scale`.

    The density is in the units of the rows; `name` says in a few words what it is.
    """

    name: str
    estimator: Any
    loc: Rows
    scale: Rows

    def score_samples(self, x: Rows) -> Rows:
        """Computes the log-density of each row, in nats."""
        scores = self.estimator.score_samples((x - self.loc) / self.scale)
        return np.asarray(scores - np.log(self.scale).sum())


def fit_gaussian(x: Rows) -> Baseline:
    """Fits a Gaussian with a full covariance by maximum likelihood.

    Example:
        >>> x = np.random.default_rng(0).normal(5, 2, (100_000, 2))
        >>> round(fit_gaussian(x).score_samples(np.full((1, 2), 5.0)).item(), 1)
        -3.2
    """
    from sklearn.mixture import GaussianMixture

    return _fit("full Gaussian", GaussianMixture(1), x)


def choose_mixture(
    train: Rows, validation: Rows, seed: int = 0, weights: Weights = (None, None)
) -> Baseline:
    """Fits mixtures of Gaussians with full covariances, and keeps the one that validates best.

    Rows count as the `weights` of both say.
    """
    from sklearn.mixture import GaussianMixture

    from .weighted_mixture import WeightedMixture

    def fit(k: int) -> Baseline:
        name = f"mixture of {k} Gaussians" if k > 1 else "mixture of one Gaussian"
        kind = GaussianMixture if weights[0] is None else WeightedMixture
        return _fit(name, kind(k, reg_covar=1e-5, random_state=seed), train, weights[0])

    fitting = (k for k in COMPONENTS if k * (train.shape[1] + 1) <= len(train))
    return _best(map(fit, fitting), validation, weights[1])


def choose_kde(train: Rows, validation: Rows, weights: Weights = (None, None)) -> Baseline:
    """Fits Gaussian kernels around all rows, with the width that validates best.

    Rows count as the `weights` of both say.
    """
    from sklearn.neighbors import KernelDensity

    def fit(width: float) -> Baseline:
        name = f"kernels of width {width:.3g}"
        return _fit(name, KernelDensity(bandwidth=width, rtol=1e-3), train, weights[0])

    return _best(map(fit, BANDWIDTHS), validation, weights[1])


def _fit(name: str, estimator: Any, x: Rows, weight: Weight | None = None) -> Baseline:
    if weight is not None:
        x, weight = x[weight > 0], weight[weight > 0]
    loc = np.average(x, axis=0, weights=weight)
    scale = np.sqrt(np.average((x - loc) ** 2, axis=0, weights=weight))
    scale[scale == 0] = 1
    z = (x - loc) / scale
    fitted = estimator.fit(z) if weight is None else estimator.fit(z, sample_weight=weight)
    return Baseline(name, fitted, loc, scale)


def _best(candidates: Iterable[Baseline], validation: Rows, weight: Weight | None) -> Baseline:
    """The best of a row of candidates that get better up to some point."""
    best, value = None, -np.inf
    share = None if weight is None else weight[:_ROWS]
    for one in candidates:
        now = np.average(one.score_samples(validation[:_ROWS]), weights=share)
        if best is not None and now <= value:
            break
        best, value = one, now
    assert best is not None
    return best


def conditional_gaussian(
    x: tuple[Tensor, Tensor],
    context: tuple[Tensor | None, Tensor | None] = (None, None),
    weight: Tensor | None = None,
) -> Tensor | None:
    r"""The log-likelihood of a Gaussian given a context, if there is one.

    .. math:: \log N(x \mid c) = \log N(x, c) - \log N(c)

    `x` are the rows that it is fitted on and those that it is evaluated on, `context` the contexts
    of both, and `weight` says how much each of the former counts. None is returned if a covariance
    is singular.

    Example:
        >>> x, c = torch.randn(2, 1000, 3, generator=torch.Generator().manual_seed(0))
        >>> conditional_gaussian((x, x[:5]), (c, c[:5])).shape
        torch.Size([5])
    """
    (train, test), (c, c_test) = x, context
    try:
        if c is None or c_test is None:
            return gaussian_log_likelihood(train, test, weight)
        both = torch.hstack([train, c]), torch.hstack([test, c_test])
        joint = gaussian_log_likelihood(*both, weight)
        return joint - gaussian_log_likelihood(c, c_test, weight)
    except ValueError:
        return None
