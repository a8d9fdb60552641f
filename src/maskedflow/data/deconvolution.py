"""A Gaussian of rows without their measurement errors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from .split import check_weight, evenly_spaced

ROWS = 10_000
"""The most rows that it is fitted to."""

ITERATIONS = 100
"""The most steps of EM."""

FLOOR = 1e-6
"""The least variance, of that with the errors, which is left when they are taken away."""


def deconvolved_gaussian(
    y: Tensor, errors: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""The mean and covariance of rows without their errors, by maximum likelihood.

    A row is :math:`y_i = x_i + e_i` with :math:`e_i \sim N(0, S_i)`. EM maximises

    .. math:: \sum_i w_i \log N(y_i; m, V + S_i)

    from the sample's mean, and its covariance less the mean of the :math:`S_i`. A step costs
    O(n D³); at most 10,000 rows are used, evenly spaced.

    Args:
        y: The rows, with shape (n, D).
        errors: Standard deviations, (n, D), or covariances, (n, D, D); zero where none.
        weight: How much each row counts, (n,); all alike if None.

    Returns:
        The mean m, (D,), and the covariance V, (D, D), in float64.

    References:
        | Extreme deconvolution (Bovy, Hogg and Roweis, 2011), equations 16 and 17 for one component
        | https://arxiv.org/abs/0905.2979

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x, e = 2 + torch.randn(2, 5000, 1, generator=generator)
        >>> errors = torch.full((5000, 1), 3.0)
        >>> mean, covariance = deconvolved_gaussian(x + 3 * (e - 2), errors)
        >>> abs(covariance.item() - 1) < 0.3
        True
    """
    y, errors = torch.as_tensor(y), torch.as_tensor(errors)
    size = y.shape[-1]
    if errors.shape not in ((len(y), size), (len(y), size, size)):
        raise ValueError(
            f"errors: expected shape ({len(y)}, {size}) or ({len(y)}, {size}, {size}), "
            f"got {tuple(errors.shape)}"
        )
    weight = torch.ones(len(y)) if weight is None else weight
    check_weight(weight, len(y))
    counted = weight.nonzero()[:, 0]
    chosen = counted[evenly_spaced(len(counted), ROWS)]
    y, noise = y[chosen].double(), covariances(errors[chosen])
    share = weight[chosen].double() / weight[chosen].double().sum()
    spread = torch.einsum("n,nij->ij", share, noise)
    mean = share @ y
    total = (share * (y - mean).T) @ (y - mean)
    floor = FLOOR * torch.where(total.diagonal() > 0, total.diagonal(), 1).diag()
    covariance = _above(total - spread, floor)
    for _ in range(ITERATIONS):
        gain = torch.linalg.solve(covariance + noise, covariance).mT
        x = mean + (gain @ (y - mean)[..., None])[..., 0]
        mean, before = share @ x, covariance
        centred = x - mean
        left = covariance - torch.einsum("n,nij->ij", share, gain) @ covariance
        covariance = _above(left + (share * centred.T) @ centred, floor)
        scale = before.diagonal().sqrt()
        if ((covariance - before).abs() <= 1e-4 * scale * scale[:, None]).all():
            break
    return mean, covariance


def measured_log_likelihood(y: Tensor, errors: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    r"""The log-density :math:`\log N(y_i; m, V + S_i)` of each row in nats, float64, (n,)."""
    whole = covariance + covariances(errors)
    found: Tensor = MultivariateNormal(mean, whole, validate_args=False).log_prob(y.double())
    return found


def covariances(errors: Tensor) -> Tensor:
    """Standard deviations or covariances, as covariances in float64."""
    return errors.double() if errors.ndim == 3 else errors.double().square().diag_embed()


def _above(matrix: Tensor, floor: Tensor) -> Tensor:
    """The nearest matrix that is above a diagonal one, in its units."""
    scale = floor.diagonal().sqrt()
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2 / scale / scale[:, None])
    found: Tensor = (vectors * values.clamp(min=1)) @ vectors.T * scale * scale[:, None]
    return found
