"""Two experiments' posteriors as one, and whether they agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import chi2
from torch import Tensor

from .information import information, moments
from .inputs import log_values
from .named import NamedDensity
from .reweight import WeightedSample
from .weights import warn_unless_trusted


@dataclass(frozen=True, eq=False)
class Product:
    r"""The unnormalised posterior of two independent experiments with the same prior.

    .. math:: \tilde p(x) = \frac{P_1(x) \, P_2(x)}{\pi(x)}

    Its call gives :math:`\log \tilde p` of rows (n, D), with gradients where x has them, as
    :func:`maskedflow.training.fit_posterior` and :func:`importance_evidence` take it.

    Args:
        first: The first posterior, what :meth:`NamedDensity.of` takes.
        second: The second one, of the same columns. Where experiments share some parameters only,
            these are their :func:`marginal` densities.
        prior: The prior of both: such a density, or a function of rows.
    """

    first: Any
    second: Any
    prior: Any

    def __post_init__(self) -> None:
        first = NamedDensity.of(self.first)
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "second", NamedDensity.of(self.second, first.columns))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        found: tuple[str, ...] = self.first.columns
        return found

    def __call__(self, x: Tensor) -> Tensor:
        log_prior = log_values("prior", self.prior, x, self.columns)
        product: Tensor = self.first.log_prob(x) + self.second.log_prob(x) - log_prior
        return torch.where(log_prior == -math.inf, -math.inf, product)


def combine(
    first: Any, second: Any, prior: Any, *, proposal: Any = None, n: int = 10_000, seed: int = 0
) -> WeightedSample:
    r"""Weighs draws as those of the posterior of two experiments together.

    .. math:: p(x \mid d_1, d_2) = \frac{1}{R} \, \frac{P_1(x) \, P_2(x)}{\pi(x)}, \qquad
        R = \frac{Z_{12}}{Z_1 Z_2}

    `log_z` of the result is :math:`\log R`, the Bayes factor of one set of parameters for both
    against one for each. Draws are of both posteriors in equal shares, and are weighted by their
    mixture: no weight is larger than twice the lesser posterior over the prior, so that tails need
    no care. Posteriors that hardly overlap want a proposal between them: a flow fitted to
    :class:`Product` by :func:`maskedflow.training.fit_posterior`.

    Args:
        first: The first posterior, what :meth:`NamedDensity.of` takes.
        second: The second one, of the same columns.
        prior: The prior of both: such a density, or a function of rows (n, D).
        proposal: Where draws come from instead.
        n: The number of draws.
        seed: Their seed.

    Raises:
        ValueError: If columns do not fit, or the two have no draw in common.

    Warns:
        UserWarning: If the weights are worth fewer than 50 draws, or their tail is too heavy.

    References:
        | Quantifying tensions in cosmological parameters (Handley and Lemos, 2019)
        | https://arxiv.org/abs/1902.04029
        | Safe and effective importance sampling (Owen and Zhou, 2000)

    Example:
        >>> from maskedflow.distributions import DiagNormal
        >>> prior = DiagNormal(torch.zeros(1), 100 * torch.ones(1))
        >>> first, second = (DiagNormal(m * torch.ones(1), torch.ones(1)) for m in (-0.5, 0.5))
        >>> both = combine(first, second, prior)
        >>> bool(both.mean.abs() < 0.05), bool((both.std - 0.5**0.5).abs() < 0.05)
        (True, True)
    """
    product = Product(first, second, prior)
    if proposal is None:
        one, two, half = product.first, product.second, -(-n // 2)
        x = torch.cat([one.sample(half, seed), two.sample(half, seed + 1)])
        log_q = torch.logaddexp(one.log_prob(x), two.log_prob(x)) - math.log(2)
    else:
        density = NamedDensity.of(proposal, product.columns)
        x = density.sample(n, seed)
        log_q = density.log_prob(x)
    found = WeightedSample(x, product(x) - log_q, product.columns)
    if found.log_weights.max() == -math.inf:
        raise ValueError("second: the posteriors have no draw in common, and R is zero")
    advice = "as a proposal take a flow that is fitted to their Product"
    warn_unless_trusted("the combination", found.ess, found.khat, len(x), advice)
    return found


@dataclass(frozen=True)
class Tension:
    r"""Whether two experiments agree.

    Attributes:
        log_r: The Bayes factor :math:`\log R`, in nats; it depends on the width of the prior.
        log_r_standard_error: Its standard error.
        log_s: The suspiciousness :math:`\log S`, which does not.
        log_s_standard_error: Its standard error.
        dimensionality: The number d of parameters that both constrain.
        p_value: How likely a :math:`\log S` so low is if they agree: of :math:`d - 2 \log S`, in a
            :math:`\chi^2` distribution with d degrees of freedom, for Gaussian posteriors. NaN if
            d is not above zero.
    """

    log_r: float
    log_r_standard_error: float
    log_s: float
    log_s_standard_error: float
    dimensionality: float
    p_value: float


def tension(
    first: Any, second: Any, prior: Any, *, proposal: Any = None, n: int = 10_000, seed: int = 0
) -> Tension:
    r"""Measures the tension between two posteriors of the same parameters.

    .. math:: \log S = \log R - (D_1 + D_2 - D_{12}), \qquad d = d_1 + d_2 - d_{12}

    with the divergences D to the prior and the dimensionalities d of :func:`information`.

    Its arguments, errors and warnings are those of :func:`combine`.

    References:
        | Quantifying tensions in cosmological parameters (Handley and Lemos, 2019)
        | https://arxiv.org/abs/1902.04029

    Example:
        >>> from maskedflow.distributions import DiagNormal
        >>> prior = DiagNormal(torch.zeros(1), 100 * torch.ones(1))
        >>> first, second = (DiagNormal(m * torch.ones(1), torch.ones(1)) for m in (-2.0, 2.0))
        >>> found = tension(first, second, prior)  # 2 sqrt(2) standard deviations
        >>> round(found.log_s, 1), found.p_value < 0.01
        (-3.5, True)
    """
    both = combine(first, second, prior, proposal=proposal, n=n, seed=seed)
    product = Product(first, second, prior)
    log_prior = log_values("prior", prior, both.x, both.columns)
    there = both.log_weights > -math.inf
    gain = (product(both.x) - log_prior)[there]  # log P1 P2 / pi^2
    joint = moments(gain, both.log_weights[there])
    one, two = (
        information(density, prior, n=n, seed=seed + 2 + i)
        for i, density in enumerate((product.first, product.second))
    )
    log_s = joint.kl - one.kl - two.kl
    error = math.hypot(joint.kl_standard_error, one.kl_standard_error, two.kl_standard_error)
    free = one.dimensionality + two.dimensionality - joint.dimensionality
    p_value = float(chi2.sf(free - 2 * log_s, free)) if free > 0 else math.nan
    return Tension(both.log_z, both.standard_error, log_s, error, free, p_value)
