"""What data have taught: the divergence to the prior, and how many parameters they constrain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .inputs import log_shares, log_values, rows_of
from .named import NamedDensity
from .weights import ess


@dataclass(frozen=True)
class Information:
    r"""What a posterior :math:`P` knows that its prior :math:`\pi` did not.

    Attributes:
        kl: The Kullback-Leibler divergence :math:`D`, in nats.
        kl_standard_error: Its standard error.
        dimensionality: The Bayesian model dimensionality :math:`d`, in parameters.
        dimensionality_standard_error: Its standard error.
        ess: What the samples are worth, in draws.
        n: The number of samples.
    """

    kl: float
    kl_standard_error: float
    dimensionality: float
    dimensionality_standard_error: float
    ess: float
    n: int


def information(
    posterior: Any,
    prior: Any,
    *,
    samples: Tensor | None = None,
    weights: Any = None,
    n: int = 10_000,
    seed: int = 0,
) -> Information:
    r"""Estimates the divergence of a posterior from its prior, and its dimensionality.

    .. math:: D = \mathrm{E}_P \left[ \log \frac{P}{\pi} \right], \qquad
        d = 2 \operatorname{Var}_P \left[ \log \frac{P}{\pi} \right]

    A Gaussian posterior of D parameters in a wide flat prior has d = D; a parameter that the data
    say nothing of adds nothing. Standard errors are those of the samples: what the density itself
    gets wrong is not in them, and d is the more sensitive to it.

    Args:
        posterior: The density, as :meth:`NamedDensity.of` takes it.
        prior: The normalised prior: such a density, or a function of rows (n, D).
        samples: Samples of the posterior, shape (n, D), drawn from the density if None.
        weights: How much each of them counts, shape (n,).
        n: The number of samples to draw.
        seed: Their seed.

    Raises:
        ValueError: If the prior is zero at a sample, or shapes do not fit.

    References:
        | Quantifying dimensionality: Bayesian cosmological model complexities
        | (Handley and Lemos, 2019), https://arxiv.org/abs/1903.06682

    Example:
        >>> import torch
        >>> from maskedflow.distributions import BoxUniform, DiagNormal
        >>> posterior = DiagNormal(torch.zeros(3), torch.ones(3))
        >>> edge = torch.full((3,), 9.0)
        >>> found = information(posterior, BoxUniform(-edge, edge))
        >>> round(found.kl, 1), round(found.dimensionality)  # 3 (log 18 - log(2 pi e) / 2)
        (4.4, 3)
    """
    density = NamedDensity.of(posterior)
    columns, x = rows_of(density if samples is None else samples, density.columns, n, seed)
    log_prior = log_values("prior", prior, x, columns)
    lost = int((log_prior == -math.inf).sum())
    if lost:
        raise ValueError(
            f"prior: expected a density above zero at each sample, got zero at {lost:,} of "
            f"{len(x):,}; fit the posterior with the bounds of the prior"
        )
    gain = density.log_prob(x) - log_prior
    return moments(gain, log_shares(weights, len(x)))


def moments(gain: Tensor, log_weights: Tensor) -> Information:
    """The same of the logarithms of posterior over prior at weighted samples."""
    n, worth, share = len(gain), ess(log_weights), log_weights.softmax(dim=0)
    mean = share @ gain
    squares = (gain - mean).square()
    free = 1 - share.square().sum()  # what a mean that is estimated leaves
    variance = share @ squares / free
    error = (share.square() @ squares / free).sqrt()
    variance_error = (share.square() @ (squares - variance).square()).sqrt()
    return Information(
        mean.item(),
        error.item(),
        2 * variance.item(),
        2 * variance_error.item(),
        worth,
        n,
    )
