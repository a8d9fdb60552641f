"""Mixtures of Gaussians by expectation-maximisation, of rows that weigh differently."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

__all__ = ["Mixture", "fit_mixture"]

_STEPS, _SMALL_GAIN = 100, 1e-3
_RIDGE = 1e-6
"""What is added to a covariance, in units of its own scale, or of the whole where rows are few."""
_ROWS = 4
"""The rows for each number of a component's mean that tell how narrow it is."""


_SHRINK = 1e-6
"""What is added to the square of a context, as a share of it: one-hot vectors add up to 1."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians.

    Args:
        logits: The logarithms of the K weights.
        loc: The means, with shape (K, D).
        scale_tril: The Cholesky factors of the covariances, with shape (K, D, D).
        slopes: How the means follow a context, with shape (K, D, C).
        steps: The steps of expectation-maximisation that it took.
    """

    logits: Tensor
    loc: Tensor
    scale_tril: Tensor
    slopes: Tensor
    steps: int = 0


def fit_mixture(
    x: Tensor, weight: Tensor, components: int, seed: int, c: Tensor | None = None
) -> Mixture:
    r"""Fits a mixture of Gaussians by maximum likelihood, from clusters by k-means.

    To each covariance :math:`10^{-6} \min(1, \mathrm{tr}(\Sigma_k) / D)` is added: clusters that
    are far apart may be as narrow as they are, unless few rows tell.

    Args:
        x: The rows, whitened, float64, with shape (n, D).
        weight: How much each row counts, with shape (n,).
        components: The number of Gaussians K.
        seed: Seed of the first means.
        c: What the means follow, with shape (n, C); they are the same in all rows if None.

    References:
        | Maximum Likelihood from Incomplete Data via the EM Algorithm (Dempster et al., 1977)

    Example:
        >>> x = torch.tensor([[0.0], [1e-6], [1.0], [1.000001]], dtype=torch.float64).repeat(5, 1)
        >>> fit_mixture(x, torch.ones(20), 2, 0).logits.exp()
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    share = weight.double() / weight.sum()
    c = x.new_zeros(len(x), 0) if c is None else c.double()
    with threadpool_limits(1), warnings.catch_warnings():  # other threads would sum otherwise
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = KMeans(components, n_init=1, random_state=seed)
        labels = clusters.fit(x.numpy(), sample_weight=share.numpy() * len(x)).labels_
    part = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), components).double()
    before, found, steps = -math.inf, _maximise(x, c, part, share), 0
    while steps < _STEPS:
        steps += 1
        each = _log_probs(x, c, found)
        total = each.logsumexp(dim=1)
        now = float(share @ total)
        if abs(now - before) < _SMALL_GAIN:
            break
        before, found = now, _maximise(x, c, (each - total[:, None]).exp(), share)
    return replace(found, steps=steps)


def _log_probs(x: Tensor, c: Tensor, mixture: Mixture) -> Tensor:
    """The log-density of each row with each component, with shape (n, K)."""
    found = []
    for k, factor in enumerate(mixture.scale_tril):
        centred = x - mixture.loc[k] - c @ mixture.slopes[k].T
        z = torch.linalg.solve_triangular(factor, centred.T, upper=False)
        constant = factor.diagonal().log().sum() + 0.5 * len(factor) * math.log(2 * math.pi)
        found.append(mixture.logits[k] - constant - 0.5 * z.square().sum(dim=0))
    return torch.stack(found, dim=1)


def _maximise(x: Tensor, c: Tensor, part: Tensor, share: Tensor) -> Mixture:
    """The mixture that is likeliest if rows belong to components in such parts."""
    features = x.shape[1]
    mass = share[:, None] * part
    total = mass.sum(dim=0).clamp(min=1e-15)
    rows = total.square() / mass.square().sum(dim=0).clamp(min=1e-300)
    eye = torch.eye(features, dtype=x.dtype)
    locs, factors, slopes = [], [], []
    for one, whole, number in zip(mass.unbind(1), total, rows, strict=True):
        weight = (one / whole)[:, None]
        loc, middle = (weight * x).sum(dim=0), (weight * c).sum(dim=0)
        centred, given = x - loc, c - middle
        square = given.T @ (weight * given)
        square = square + _SHRINK * torch.eye(len(square), dtype=x.dtype)
        slope = torch.linalg.solve(square, given.T @ (weight * centred)).T
        centred = centred - given @ slope.T
        covariance = centred.T @ (weight * centred)
        scale = min(1.0, float(covariance.trace()) / features)
        told = float(number) >= _ROWS * (features + c.shape[1] + 1)
        ridge = _RIDGE * (scale if told and scale > 0 else 1.0)
        locs.append(loc - slope @ middle)
        slopes.append(slope)
        factors.append(torch.linalg.cholesky(covariance + ridge * eye))
    logits = total.log() - total.sum().log()
    return Mixture(logits, torch.stack(locs), torch.stack(factors), torch.stack(slopes))
