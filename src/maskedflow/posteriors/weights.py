"""Importance weights: what they are worth, and with their tail smoothed."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

TRUSTED = 50.0
"""Effective draws below which neither an estimate nor its standard error is to be trusted."""


def ess(log_weights: Tensor) -> float:
    r"""The effective sample size :math:`(\sum w_i)^2 / \sum w_i^2`, from 1 to n.

    References:
        Monte Carlo theory, methods and examples (Owen, 2013), equation 9.13
        https://artowen.su.domains/mc/

    Example:
        >>> round(ess(torch.zeros(10)), 6)
        10.0
    """
    return math.exp(-(2 * log_weights.double().log_softmax(dim=0)).logsumexp(dim=0).item())


def psis(log_weights: Tensor) -> tuple[Tensor, float]:
    r"""Smooths the largest importance weights by a generalised Pareto distribution.

    The :math:`M = \min(n / 5, 3 \sqrt n)` largest weights give way to the quantiles of the
    distribution that is fitted to them, and none exceeds the largest one. Its shape
    :math:`\hat k` tells how heavy the tail is: of a k below 1/2 the weights have a variance, below
    1 a mean; estimates are reliable up to :math:`\min(1 - 1 / \log_{10} n, 0.7)`.

    Args:
        log_weights: The logarithms of the weights, up to a constant, shape (n,).

    Returns:
        The smoothed log-weights, float64, in the same order, and :math:`\hat k`: infinity if there
        are too few weights to tell, minus infinity if all are equal.

    References:
        | Pareto Smoothed Importance Sampling (Vehtari et al., 2015), algorithm 1
        | https://arxiv.org/abs/1507.02646
        | A New and Efficient Estimation Method for the Generalized Pareto Distribution
        | (Zhang and Stephens, 2009)

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.randn(4000, generator=generator, dtype=torch.float64)
        >>> light, k = psis(0.2 * z)
        >>> heavy, other = psis(z.square())
        >>> k < 0.5 < 0.7 < other
        True
    """
    log_weights = log_weights.double()
    highest = log_weights.max()
    log_weights = log_weights - highest
    n = len(log_weights)
    order = log_weights.argsort()
    size = min(math.ceil(min(0.2 * n, 3 * math.sqrt(n))), n - 1)
    cut = log_weights[order[-size - 1]].clamp(min=math.log(torch.finfo(torch.float64).tiny))
    tail = order[log_weights[order] > cut]
    if len(tail) < 5:
        k = -math.inf if n > 5 and bool((log_weights == 0).all()) else math.inf
        return log_weights + highest, k
    k, sigma = _fit_pareto(log_weights[tail].exp() - cut.exp())
    share = (torch.arange(len(tail), dtype=torch.float64) + 0.5) / len(tail)
    excess = (
        sigma * torch.expm1(-k * torch.log1p(-share)) / k if k else -sigma * torch.log1p(-share)
    )
    smoothed = log_weights.clone()
    smoothed[tail] = (excess + cut.exp()).log().clamp(max=0.0)
    return smoothed + highest, k


def _fit_pareto(x: Tensor) -> tuple[float, float]:
    """The shape and scale of a generalised Pareto distribution of sorted numbers above 0."""
    n = len(x)
    points = 30 + int(math.sqrt(n))
    b = 1 - torch.sqrt(points / (torch.arange(1, points + 1, dtype=torch.float64) - 0.5))
    b = b / (3 * x[int(n / 4 + 0.5) - 1]) + 1 / x[-1]
    k = torch.log1p(-b[:, None] * x).mean(dim=1)
    likelihood = n * (torch.log(-b / k) - k - 1)
    mean = (likelihood.softmax(dim=0) * b).sum()
    shape = torch.log1p(-mean * x).mean()
    # A prior worth ten observations at k = 1/2.
    return float((n * shape + 10 * 0.5) / (n + 10)), float(-shape / mean)


def khat_limit(n: int) -> float:
    r"""The largest :math:`\hat k` at which n weights are reliable.

    .. math:: \min(1 - 1 / \log_{10} n, 0.7)

    References:
        Pareto Smoothed Importance Sampling (Vehtari et al., 2024)
        https://arxiv.org/abs/1507.02646

    Example:
        >>> khat_limit(100), khat_limit(100_000)
        (0.5, 0.7)
    """
    return min(1 - 1 / math.log10(n), 0.7) if n > 10 else 0.0


def is_trusted(ess: float, khat: float, n: int) -> bool:
    """Whether weights are worth fifty draws at least, and their tail is light enough."""
    return ess >= TRUSTED and khat <= khat_limit(n)


def warn_unless_trusted(what: str, ess: float, khat: float, n: int, advice: str) -> None:
    """Warns of an estimate from weights that cannot be trusted."""
    if not is_trusted(ess, khat, n):
        warnings.warn(
            f"{what} cannot be trusted, nor its standard error: {n:,} weights are worth "
            f"{ess:.0f} draws, with a tail of k-hat {khat:.2f} where {khat_limit(n):.2f} is the "
            f"limit; {advice}",
            stacklevel=3,
        )
