"""The yardstick that every density estimator must beat: one Gaussian with a full covariance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_NUMBERS = 2**22  # of a block in float64: it stays small beside the data, whatever their width


def gaussian_log_likelihood(train: Tensor, test: Tensor) -> Tensor:
    r"""The log-likelihood of a full-covariance Gaussian fitted by maximum likelihood.

    .. math:: \log N(x; \mu, \Sigma), \quad \mu, \Sigma \text{ the mean and covariance of train}

    It is also a check of a data set's integrity: the MAF paper gives its mean for every data set.
    Costs O(n features²) in blocks of rows.

    Args:
        train: The rows it is fitted on, shape `(n, features)`.
        test: The rows it is evaluated on, shape `(m, features)`.

    Returns:
        The log-density of each test row in nats, float64, shape `(m,)`.

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
    mean = train.new_zeros(train.shape[1], dtype=torch.float64)
    for block in train.split(rows):
        mean += block.double().sum(0) / len(train)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=train.device)
    for block in train.split(rows):
        centred = block.double() - mean
        covariance += centred.T @ centred / len(train)
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


def conditional_gaussian(
    x: tuple[Tensor, Tensor], context: tuple[Tensor | None, Tensor | None] = (None, None)
) -> Tensor | None:
    r"""The log-likelihood of a Gaussian given a context, if there is one.

    .. math:: \log N(x \mid c) = \log N(x, c) - \log N(c)

    Args:
        x: The rows that it is fitted on, and those that it is evaluated on.
        context: The contexts of both.

    Returns:
        The log-density of each test row in nats, float64; None if a covariance is singular.

    Example:
        >>> x, c = torch.randn(2, 1000, 3, generator=torch.Generator().manual_seed(0))
        >>> conditional_gaussian((x, x[:5]), (c, c[:5])).shape
        torch.Size([5])
    """
    (train, test), (c, c_test) = x, context
    try:
        if c is None or c_test is None:
            return gaussian_log_likelihood(train, test)
        joint = gaussian_log_likelihood(torch.hstack([train, c]), torch.hstack([test, c_test]))
        return joint - gaussian_log_likelihood(c, c_test)
    except ValueError:
        return None
