"""A mixture of Gaussians of rows that weigh differently, which scikit-learn's takes for alike."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

Array = NDArray[np.float64]

STEPS, GAIN = 100, 1e-3
"""Most steps, and the mean log-density that the last of them gains: those of scikit-learn."""


class WeightedMixture:
    r"""A mixture of Gaussians with full covariances by weighted expectation-maximisation.

    .. math:: \max_\theta \sum_i w_i \log \sum_k \pi_k N(x_i; \mu_k, \Sigma_k)

    It starts at the clusters of k-means, and adds a ridge to the covariances' diagonals.

    Example:
        >>> mixture = WeightedMixture(1, reg_covar=0.0)
        >>> x = np.array([[0.0], [4.0]])
        >>> mixture.fit(x, sample_weight=np.array([3.0, 1.0])).means, mixture.covariances
        (array([[1.]]), array([[[3.]]]))
    """

    def __init__(self, components: int, reg_covar: float, random_state: int = 0) -> None:
        self.components, self.reg_covar, self.random_state = components, reg_covar, random_state

    def fit(self, x: Array, *, sample_weight: Array) -> Self:
        """Fits it to rows x, shape (n, features), with weights above 0 of shape (n,)."""
        from sklearn.cluster import KMeans

        share = sample_weight / sample_weight.sum()
        clusters = KMeans(self.components, n_init=1, random_state=self.random_state)
        labels = clusters.fit(x, sample_weight=share * len(x)).labels_
        self._maximise(x, share[:, None] * np.eye(self.components)[labels])
        before = -math.inf
        for _ in range(STEPS):
            each = self._each(x)
            total = logsumexp(each, axis=1)
            value = float(share @ total)
            if value - before < GAIN:
                break
            before = value
            self._maximise(x, share[:, None] * np.exp(each - total[:, None]))
        return self

    def score_samples(self, x: Array) -> Array:
        """Computes the log-density of each row, in nats."""
        found: Array = logsumexp(self._each(x), axis=1)
        return found

    def _maximise(self, x: Array, mass: Array) -> None:
        """Sets the likeliest parameters, given how much of each row is each component's."""
        count = mass.sum(axis=0) + np.finfo(np.float64).tiny
        self.log_share = np.log(count / count.sum())
        self.means = mass.T @ x / count[:, None]
        apart = (x - mean for mean in self.means)
        scatter = np.stack(
            [(part[:, None] * d).T @ d for part, d in zip(mass.T, apart, strict=True)]
        )
        ridge = self.reg_covar * np.eye(x.shape[1])
        self.covariances = scatter / count[:, None, None] + ridge
        self._factors = np.linalg.cholesky(self.covariances)

    def _each(self, x: Array) -> Array:
        """The logarithm of each component's share of the density of each row."""
        found = np.empty((len(x), self.components))
        for k, factor in enumerate(self._factors):
            z = solve_triangular(factor, (x - self.means[k]).T, lower=True)
            scale = np.log(factor.diagonal()).sum() + 0.5 * len(z) * math.log(2 * math.pi)
            found[:, k] = self.log_share[k] - 0.5 * (z**2).sum(axis=0) - scale
        return found
