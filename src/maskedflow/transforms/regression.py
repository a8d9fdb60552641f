"""Linear regression with Gaussian residuals, of rows that may have gaps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

#: Steps of expectation-maximisation, and the change of a correlation that ends them earlier.
MOST_STEPS, SMALL_CHANGE = 50, 1e-4
#: The numbers of a block of small matrices, one a row.
NUMBERS = 2**22
#: The columns of a product; only the lower half of a symmetric matrix is computed.
COLUMNS = 512


def marginal_factors(scale_tril: Tensor, patterns: Tensor) -> Tensor:
    """The Cholesky factors of the marginals of N(0, L L^T), with shape (P, D, D).

    The patterns say which features are there, with shape (P, D); ones are in place of the others.
    """
    both = patterns[:, :, None] & patterns[:, None, :]
    eye = torch.eye(len(scale_tril), dtype=scale_tril.dtype, device=scale_tril.device)
    return cast(Tensor, torch.linalg.cholesky(torch.where(both, scale_tril @ scale_tril.T, eye)))


def moments(x: Tensor, observed: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation of each column's numbers, 1 where all are alike."""
    part = share[:, None] * observed
    there = part > 0
    part = part / part.sum(dim=0).clamp(min=torch.finfo(part.dtype).tiny)
    loc = (part * x).sum(dim=0)
    scale = (part * torch.where(observed, x - loc, 0).square()).sum(dim=0).sqrt()
    low, high = x.where(there, math.inf).amin(dim=0), x.where(there, -math.inf).amax(dim=0)
    # The computed mean of a constant need not be exactly that, nor its deviation zero.
    return torch.where(low == high, low, loc), torch.where(low < high, scale, 1)


def streamed_moments(blocks: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The weighted mean and the biased covariance, in float64, of rows and their weights.

    The variance of a constant is exactly zero, whatever is lost to rounding.
    """
    mass, mean, scatter = 0.0, torch.zeros(()), torch.zeros(())
    low, high = torch.tensor(math.inf), torch.tensor(-math.inf)
    for rows, weight in blocks:
        share = float(weight.sum())
        if share == 0:
            continue
        if mass == 0:
            mean = rows.new_zeros(rows.shape[1], dtype=torch.float64)
            scatter = torch.diag(mean)
        x = rows.double()
        centre = weight @ x / share
        centred = x - centre
        weighed = weight[:, None] * centred
        apart = centre - mean
        # Chan, Golub and LeVeque (1983): sums about each block's own mean do not cancel.
        scatter.addr_(apart, apart, alpha=mass * share / (mass + share))
        for first in range(0, len(mean), COLUMNS):
            below, some = slice(first, None), slice(first, first + COLUMNS)
            scatter[below, some].addmm_(weighed[:, below].T, centred[:, some])
        mean += share / (mass + share) * apart
        mass += share
        there = x[weight > 0]
        low = torch.minimum(low.to(mean), there.amin(dim=0))
        high = torch.maximum(high.to(mean), there.amax(dim=0))
    lower = scatter.tril() / mass
    varies = low < high
    covariance = torch.where(varies[:, None] & varies, lower + lower.tril(-1).T, 0)
    return torch.where(varies, mean, low), covariance


def regress(
    z: Tensor, given: Tensor, observed: Tensor, share: Tensor, ridge: float
) -> tuple[Tensor, Tensor]:
    """The coefficients of a regression on what is given, and the factor of the residuals."""
    eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    # One-hot vectors add up to the constant: of all solutions take nearly the shortest.
    normal = given.T @ (share[:, None] * given)
    normal = normal + 1e-9 * torch.eye(len(normal), dtype=z.dtype, device=z.device)
    coefficients, covariance = z.new_zeros(given.shape[1], z.shape[1]), eye
    for _ in range(1 if observed.all() else MOST_STEPS):
        filled, left = _expect(z, given @ coefficients, covariance, observed, share)
        coefficients = torch.linalg.solve(normal, given.T @ (share[:, None] * filled))
        residual = filled - given @ coefficients
        before, covariance = covariance, residual.T @ (share[:, None] * residual) + left
        covariance = (covariance + ridge * eye) / max(ridge, 1.0)
        if (covariance - before).abs().max() < SMALL_CHANGE:
            break
    constant = ((z == 0) | (share[:, None] == 0)).all(dim=0)
    return coefficients, torch.linalg.cholesky(covariance + torch.diag(constant.to(z)))


def _expect(
    z: Tensor, mean: Tensor, covariance: Tensor, observed: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """The rows, filled in by means given the rest of a row, and the mean covariance of that."""
    filled, left = z.clone(), torch.zeros_like(covariance)
    factor = torch.linalg.cholesky(covariance)
    rows = (~observed).any(dim=1).nonzero()[:, 0]
    for part in rows.split(max(1, NUMBERS // len(covariance) ** 2)):
        here = observed[part]
        patterns, which = here.unique(dim=0, return_inverse=True)
        there, away = patterns[:, :, None], ~patterns[:, None, :]
        cross = torch.where(there & away, covariance, 0)
        slopes = torch.cholesky_solve(cross, marginal_factors(factor, patterns))
        residual = torch.where(here, z[part] - mean[part], 0)
        guess = mean[part] + (residual[:, None] @ slopes[which])[:, 0]
        filled[part] = torch.where(here, z[part], guess)
        rest = torch.where(~there & away, covariance, 0) - cross.mT @ slopes
        mass = share.new_zeros(len(patterns)).index_add(0, which, share[part])
        left += torch.einsum("p,pij->ij", mass, rest)
    return filled, left
