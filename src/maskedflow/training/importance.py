"""Importance sampling: what the draws of a flow say of an unnormalised density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskedflow.distributions.base import draw_and_log_prob

from .evaluation import BATCH_SIZE, frozen

LogDensity = Callable[[Tensor], Tensor]
"""An unnormalised log-density: of points with shape (n, features), shape (n,), in nats."""


@dataclass(frozen=True)
class ImportanceSample:
    r"""Draws of a flow q, weighted as draws of :math:`p(x) = \tilde p(x) / Z`.

    What they say holds where q has been. A mode that q never draws from shows neither in the
    effective sample size, which stays high, nor in the standard error: Z is then that of the modes
    that were found.

    Attributes:
        x: The draws, with shape (n, features).
        log_weights: :math:`\log w_i = \log \tilde p(x_i) - \log q(x_i)`, with shape (n,), in
            float64.

    Example:
        >>> sample = ImportanceSample(torch.zeros(4, 1), torch.tensor([0.0, 0.0, 0.0, -torch.inf]))
        >>> round(sample.ess, 3), round(sample.log_z, 3)
        (3.0, -0.288)
    """

    x: Tensor
    log_weights: Tensor

    @property
    def weights(self) -> Tensor:
        """The weights, whose sum is one, with shape (n,)."""
        return self.log_weights.double().softmax(dim=0)

    @property
    def ess(self) -> float:
        r"""The effective sample size :math:`(\sum w_i)^2 / \sum w_i^2`, from 1 to n.

        References:
            Monte Carlo theory, methods and examples (Owen, 2013), equation 9.13
            https://artowen.su.domains/mc/
        """
        return math.exp(-(2 * self.log_weights.log_softmax(dim=0)).logsumexp(dim=0).item())

    @property
    def log_z(self) -> float:
        r"""The estimate :math:`\log \frac{1}{n} \sum_i w_i` of log Z, in nats."""
        return self.log_weights.logsumexp(dim=0).item() - math.log(len(self.log_weights))

    @property
    def standard_error(self) -> float:
        r"""The standard error of `log_z`, in nats, by the delta method.

        .. math:: \frac{1}{\bar w} \sqrt{\frac{1}{n (n - 1)} \sum_i (w_i - \bar w)^2}
            = \sqrt{\frac{n / \mathrm{ESS} - 1}{n - 1}}
        """
        n = len(self.log_weights)
        return math.sqrt(max(n / self.ess - 1, 0.0) / (n - 1)) if n > 1 else math.inf

    @property
    def mean(self) -> Tensor:
        """The mean of p, with shape (features,), in float64."""
        return self.weights @ self.x.double()

    @property
    def std(self) -> Tensor:
        """The standard deviations of p, with shape (features,), in float64."""
        return (self.weights @ (self.x.double() - self.mean).square()).sqrt()


def importance_sample(
    flow: nn.Module,
    log_density: LogDensity,
    n: int,
    generator: torch.Generator | None = None,
    batch_size: int = BATCH_SIZE,
) -> ImportanceSample:
    """Draws from a flow and weighs the draws as those of an unnormalised density.

    Costs n draws with their log-probabilities, and n evaluations of the density.

    Args:
        flow: A module whose call `flow()` gives a distribution that draws and has a `log_prob`.
        log_density: The unnormalised log-density.
        n: The number of draws.
        generator: Where draws come from.
        batch_size: Draws computed at once.

    Raises:
        ValueError: If the log-density is NaN or infinite, or has another shape than (n,).
            Minus infinity is allowed: a weight of zero.

    Example:
        >>> from maskedflow.flows import MAF
        >>> def log_density(x):
        ...     return -0.5 * x.square().sum(dim=-1)
        >>> sample = importance_sample(MAF(2, transforms=1), log_density, 1000)
        >>> 1 < sample.ess < 1000
        True
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1 draw, got {n}")
    points, log_weights = [], []
    with frozen(flow):
        distribution = flow()
        for start in range(0, n, batch_size):
            shape = (min(batch_size, n - start),)
            x, log_q = draw_and_log_prob(distribution, shape, generator)
            log_p = check_log_density(log_density(x), x)
            points.append(x)
            log_weights.append(log_p.double() - log_q.double())
    return ImportanceSample(torch.cat(points), torch.cat(log_weights))


def check_log_density(values: Tensor, x: Tensor) -> Tensor:
    """Refuses values that are no log-densities of the points x.

    Raises:
        ValueError: If their shape is not that of the batch, or one is NaN or plus infinity.
    """
    if values.shape != x.shape[:-1]:
        raise ValueError(
            f"log_density: expected shape {tuple(x.shape[:-1])} for x of shape {tuple(x.shape)}, "
            f"got {tuple(values.shape)}"
        )
    wrong = values.isnan() | (values == math.inf)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        where = ", ".join(f"{number:.4g}" for number in x[row, :8].tolist())
        rest = ", ..." if x.shape[-1] > 8 else ""
        raise ValueError(
            f"log_density: expected numbers below infinity, got {values[row].item()} "
            f"at x = ({where}{rest})"
        )
    return values
