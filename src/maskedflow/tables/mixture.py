"""Mixtures of Gaussians by expectation-maximisation, of rows that weigh differently."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

__all__ = ["Mixture", "fit_mixture"]

_STEPS, _SMALL_GAIN = 100, 1e-3
_RIDGE = 1e-6
"""What is added to a covariance, in units of its own scale, or of the whole where rows are few."""
_ROWS = 4
"""The rows for each number of a component's mean that tell how narrow it is."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians.

    Args:
        logits: The logarithms of the K weights.
        loc: The means, with shape (K, D).
        scale_tril: The Cholesky factors of the covariances, with shape (K, D, D).
        steps: The steps of expectation-maximisation that it took.
    """

    logits: Tensor
    loc: Tensor
    scale_tril: Tensor
    steps: int


def fit_mixture(x: Tensor, weight: Tensor, components: int, seed: int) -> Mixture:
    r"""Fits a mixture of Gaussians by maximum likelihood, from clusters by k-means.

    To each covariance :math:`10^{-6} \min(1, \mathrm{tr}(\Sigma_k) / D)` is added: clusters that
    are far apart may be as narrow as they are, unless few rows tell.

    Args:
        x: The rows, whitened, float64, with shape (n, D).
        weight: How much each row counts, with shape (n,).
        components: The number of Gaussians K.
        seed: Seed of the first means.

    References:
        | Maximum Likelihood from Incomplete Data via the EM Algorithm (Dempster et al., 1977)

    Example:
        >>> x = torch.tensor([[0.0], [1e-6], [1.0], [1.000001]], dtype=torch.float64).repeat(5, 1)
        >>> fit_mixture(x, torch.ones(20), 2, 0).logits.exp()
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    share = weight.double() / weight.sum()
    with threadpool_limits(1), warnings.catch_warnings():  # other threads would sum otherwise
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = KMeans(components, n_init=1, random_state=seed)
        labels = clusters.fit(x.numpy(), sample_weight=share.numpy() * len(x)).labels_
    part = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), components).double()
    before, found, steps = -math.inf, _maximise(x, part, share), 0
    while steps < _STEPS:
        steps += 1
        each = _log_probs(x, *found)
        total = each.logsumexp(dim=1)
        now = float(share @ total)
        if abs(now - before) < _SMALL_GAIN:
            break
        before, found = now, _maximise(x, (each - total[:, None]).exp(), share)
    return Mixture(*found, steps)


def _log_probs(x: Tensor, logits: Tensor, loc: Tensor, scale_tril: Tensor) -> Tensor:
    """The log-density of each row with each component, with shape (n, K)."""
    found = []
    for logit, mean, factor in zip(logits, loc, scale_tril, strict=True):
        z = torch.linalg.solve_triangular(factor, (x - mean).T, upper=False)
        constant = factor.diagonal().log().sum() + 0.5 * len(mean) * math.log(2 * math.pi)
        found.append(logit - constant - 0.5 * z.square().sum(dim=0))
    return torch.stack(found, dim=1)


def _maximise(x: Tensor, part: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mixture that is likeliest if rows belong to components in such parts."""
    features = x.shape[1]
    mass = share[:, None] * part
    total = mass.sum(dim=0).clamp(min=1e-15)
    loc = (mass.T @ x) / total[:, None]
    rows = total.square() / mass.square().sum(dim=0).clamp(min=1e-300)
    eye = torch.eye(features, dtype=x.dtype)
    factors = []
    for k in range(len(loc)):
        centred = x - loc[k]
        covariance = centred.T @ (centred * mass[:, k : k + 1]) / total[k]
        scale = min(1.0, float(covariance.trace()) / features)
        told = float(rows[k]) >= _ROWS * (features + 1)
        ridge = _RIDGE * (scale if told and scale > 0 else 1.0)
        factors.append(torch.linalg.cholesky(covariance + ridge * eye))
    return total.log() - total.sum().log(), loc, torch.stack(factors)
