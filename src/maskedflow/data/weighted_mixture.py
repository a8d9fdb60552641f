"""scikit-learn's mixture of Gaussians, of rows that count for as much as their weights say."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

Array = NDArray[np.float64]


class WeightedMixture(GaussianMixture):  # type: ignore[misc]  # it has no types
    r"""A Gaussian mixture by weighted expectation-maximisation.

    .. math:: \max_\theta \sum_i w_i \log \sum_k \pi_k N(x_i; \mu_k, \Sigma_k)

    Each row's responsibilities are multiplied with its weight where parameters are computed.

    Example:
        >>> x = np.array([[0.0], [2.0]])
        >>> WeightedMixture().fit(x, sample_weight=np.array([3.0, 1.0])).means_
        array([[0.5]])
    """

    def fit(self, x: Array, y: None = None, *, sample_weight: Array) -> Self:
        """Fits it to rows x, shape (n, features), with weights of shape (n,)."""
        kept = sample_weight > 0
        self._share = sample_weight[kept] / sample_weight[kept].mean()
        super().fit(x[kept])
        return self

    def _initialize(self, x: Array, resp: Array, *more: Any) -> None:
        super()._initialize(x, self._share[:, None] * resp, *more)

    def _m_step(self, x: Array, log_resp: Array, *more: Any) -> None:
        super()._m_step(x, log_resp + np.log(self._share)[:, None], *more)

    def _e_step(self, x: Array, *more: Any) -> tuple[float, Array]:
        log_prob, log_resp = self._estimate_log_prob_resp(x, *more)
        return float(np.average(log_prob, weights=self._share)), log_resp
