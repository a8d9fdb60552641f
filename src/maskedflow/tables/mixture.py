"""Mixtures of Gaussians whose means may follow a context, fitted to rows that weigh differently."""

from __future__ import annotations

import math
import warnings

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

from maskedflow.distributions import MixtureOfGaussians
from maskedflow.flows import LazyDistribution
from maskedflow.flows.flow import check_context

_STEPS, _SMALL_GAIN = 100, 1e-3
_RIDGE = 1e-6
"""What is added to a covariance, in units of its own scale, or of the whole where rows are few."""
_ROWS = 4
"""The rows for each number of a component's mean that show how narrow it is."""
_SHRINK = 1e-6
"""What is added to the square of a context, as a share of it: one-hot vectors add up to 1."""


class MixtureOfRegressions(LazyDistribution):
    r"""A lazy mixture of Gaussians, whose means may follow the context.

    .. math:: p(x \mid c) = \sum_{k=1}^K w_k \, \mathcal{N}(x \mid \mu_k + B_k c, L_k L_k^T)

    A density costs :math:`O(K D (D + C))`, and so does a sample. The logits, (K,), means, (K, D),
    Cholesky factors, (K, D, D), and slopes, (K, D, C), are buffers: they are fitted already. No
    context counts if there are no slopes.

    References:
        | Hierarchical Mixtures of Experts and the EM Algorithm (Jordan and Jacobs, 1994)
    """

    logits: Tensor
    loc: Tensor
    scale_tril: Tensor
    slopes: Tensor | None

    def __init__(
        self, logits: Tensor, loc: Tensor, scale_tril: Tensor, slopes: Tensor | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("logits", logits)
        self.register_buffer("loc", loc)
        self.register_buffer("scale_tril", scale_tril)
        self.register_buffer("slopes", slopes)

    def extra_repr(self) -> str:
        components, features = self.loc.shape
        context = 0 if self.slopes is None else self.slopes.shape[-1]
        return f"components={components}, features={features}, context={context}"

    def forward(self, c: Tensor | None = None) -> MixtureOfGaussians:
        """Makes the mixture for the context `c`, with shape (*, C), or none."""
        if self.slopes is None:
            return MixtureOfGaussians(self.logits, self.loc, scale_tril=self.scale_tril)
        check_context(c, self.slopes.shape[-1])
        shift = torch.einsum("kdc,...c->...kd", self.slopes, c)
        factors = self.scale_tril.expand(*shift.shape, -1)
        logits = self.logits.expand(shift.shape[:-1])
        return MixtureOfGaussians(logits, self.loc + shift, scale_tril=factors)


def fit_mixture(
    x: Tensor, weight: Tensor, components: int, seed: int, c: Tensor | None = None
) -> tuple[MixtureOfRegressions, int]:
    r"""Fits a mixture by expectation-maximisation from clusters by k-means; counts the steps, too.

    To each covariance :math:`10^{-6} \min(1, \mathrm{tr}(\Sigma_k) / D)` is added: clusters that
    are far apart may be as narrow as they are, unless there are few rows. These are whitened,
    (n, D), and the means follow c, (n, C), if there is any.

    References:
        | Maximum Likelihood from Incomplete Data via the EM Algorithm (Dempster et al., 1977)
    """
    share = weight.double() / weight.sum()
    c = None if c is None else c.double()
    part = clusters(x, components, seed, share * len(x))
    before, found, steps = -math.inf, _maximise(x, c, part, share), 0
    while steps < _STEPS:
        steps += 1
        each = _log_probs(x, c, found)
        total = each.logsumexp(dim=1)
        now = float(share @ total)
        if abs(now - before) < _SMALL_GAIN:
            break
        before, found = now, _maximise(x, c, (each - total[:, None]).exp(), share)
    return found, steps


def clusters(x: Tensor, count: int, seed: int, weight: Tensor | None = None) -> Tensor:
    """Ones where rows, (n, D), are in clusters by k-means, (n, count)."""
    counts = None if weight is None else weight.numpy()
    with threadpool_limits(1), warnings.catch_warnings():  # other threads would sum otherwise
        warnings.simplefilter("ignore", ConvergenceWarning)
        means = KMeans(count, n_init=1, random_state=seed)
        labels = means.fit(x.numpy(), sample_weight=counts).labels_
    return torch.nn.functional.one_hot(torch.from_numpy(labels).long(), count).double()


def _log_probs(x: Tensor, c: Tensor | None, mixture: MixtureOfRegressions) -> Tensor:
    """The log-density of each row with each component, with shape (n, K)."""
    found = []
    for k, factor in enumerate(mixture.scale_tril):
        centred = x - mixture.loc[k]
        if c is not None and mixture.slopes is not None:
            centred = centred - c @ mixture.slopes[k].T
        z = torch.linalg.solve_triangular(factor, centred.T, upper=False)
        constant = factor.diagonal().log().sum() + 0.5 * len(factor) * math.log(2 * math.pi)
        found.append(mixture.logits[k] - constant - 0.5 * z.square().sum(dim=0))
    return torch.stack(found, dim=1)


def _maximise(x: Tensor, c: Tensor | None, part: Tensor, share: Tensor) -> MixtureOfRegressions:
    """The mixture that is likeliest if rows belong to components in such parts."""
    given = x.new_zeros(len(x), 0) if c is None else c
    features, context = x.shape[1], given.shape[1]
    mass = share[:, None] * part
    total = mass.sum(dim=0).clamp(min=1e-15)
    rows = total.square() / mass.square().sum(dim=0).clamp(min=1e-300)
    eye, small = torch.eye(features, dtype=x.dtype), _SHRINK * torch.eye(context, dtype=x.dtype)
    locs, factors, slopes = [], [], []
    for one, whole, number in zip(mass.unbind(1), total, rows, strict=True):
        weight = (one / whole)[:, None]
        loc, middle = (weight * x).sum(dim=0), (weight * given).sum(dim=0)
        centred, moved = x - loc, given - middle
        square = moved.T @ (weight * moved) + small
        slope = torch.linalg.solve(square, moved.T @ (weight * centred)).T
        centred = centred - moved @ slope.T
        covariance = centred.T @ (weight * centred)
        scale = min(1.0, float(covariance.trace()) / features)
        enough = float(number) >= _ROWS * (features + context + 1)
        ridge = _RIDGE * (scale if enough and scale > 0 else 1.0)
        locs.append(loc - slope @ middle)
        slopes.append(slope)
        factors.append(torch.linalg.cholesky(covariance + ridge * eye))
    return MixtureOfRegressions(
        total.log() - total.sum().log(),
        torch.stack(locs),
        torch.stack(factors),
        None if c is None else torch.stack(slopes),
    )
