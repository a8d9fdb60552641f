"""Expected coverage: how many regions of each credibility hold the true parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kstest
from torch import Tensor

from .calibration import SIGNIFICANT
from .draws import draw, log_probs, numpys, pairs_of, uniform_ranks

Numbers = NDArray[np.float64]

RESAMPLED = 1000
"""How often the pairs are drawn again for a band."""


@dataclass(frozen=True)
class Coverage:
    """The smallest regions that hold true parameters; their credibility is uniform if all is right.

    Args:
        regions: Which regions these are.
        credibility: How much of its posterior the region has that just reaches the true parameters,
            shape (N,).
        seed: Seed of the band.
    """

    regions: str
    credibility: Numbers = field(repr=False)
    seed: int = 0

    @property
    def levels(self) -> Numbers:
        """Credibilities from 0 to 1, shape (101,)."""
        return np.linspace(0, 1, 101)

    @property
    def coverage(self) -> Numbers:
        """The share of true parameters inside of the regions of each level, shape (101,)."""
        return self._counts.cumsum() / len(self.credibility)

    @property
    def band(self) -> tuple[Numbers, Numbers]:
        """Where 95% of the coverages are of pairs drawn again from these, two of shape (101,)."""
        n = len(self.credibility)
        drawn = numpys(self.seed).multinomial(n, self._counts / n, RESAMPLED)
        low, high = np.quantile(drawn.cumsum(1) / n, [0.025, 0.975], axis=0)
        return low, high

    @property
    def p_value(self) -> float:
        """That of the Kolmogorov-Smirnov test that credibilities are uniform."""
        return float(kstest(self.credibility, "uniform").pvalue)

    @property
    def atc(self) -> float:
        r"""The area to the curve, from coverage less credibility.

        .. math:: \int_{1/2}^1 (\mathrm{coverage}(a) - a) \, da

        Below zero regions are too small: the posterior is too narrow, or biased. Above it they are
        too large.
        """
        return float((1 - self.credibility.clip(0.5)).mean() - 3 / 8)

    @property
    def verdict(self) -> str:
        """Calibrated, too narrow or biased, or too wide."""
        if self.p_value >= SIGNIFICANT:
            return "calibrated"
        return "too narrow or biased" if self.atc < 0 else "too wide"

    def __str__(self) -> str:
        n, inside = len(self.credibility), float((self.credibility <= 0.9).mean())
        error = np.sqrt(inside * (1 - inside) / n)
        return (
            f"{self.regions} of {n:,} posteriors: those of 90% hold {inside:.1%} ± {error:.1%} of"
            f" the true parameters; {self.verdict}, p = {self.p_value:.2g}"
        )

    @property
    def _counts(self) -> NDArray[np.int64]:
        """How many credibilities are up to each level, and above the one before."""
        place = np.searchsorted(self.levels, self.credibility)
        return np.bincount(place, minlength=len(self.levels))


def expected_coverage(
    posterior: Any,
    theta: ArrayLike | Tensor,
    x: ArrayLike | Tensor,
    *,
    n: int = 1000,
    seed: int = 0,
) -> Coverage:
    r"""Expected coverage of the regions of highest posterior density.

    .. math:: c_i = q\big(\log q(\theta \mid x_i) > \log q(\theta^*_i \mid x_i)\big)

    estimated by n samples: the credibility of the smallest region that holds the true parameters. A
    region of credibility a is to hold a share a of them. Costs n densities a pair, and the samples.

    Args:
        posterior: What has `sample(shape, x=...)` and `log_prob(theta, x=...)`, or `sample_batched`
            and `log_prob_batched`: ours, or sbi's.
        theta: Parameters drawn from the prior, shape (N, D).
        x: What was simulated of each, shape (N, ...); simulations that the fit has not seen.
        n: Samples of each posterior.
        seed: Seed of all that is drawn; torch's own state is left alone.

    Raises:
        ValueError: If shapes do not fit, parameters are not finite, or a log-density is NaN.

    References:
        | A Crisis in Simulation-Based Inference? Beware, Your Posterior Approximations Can Be
          Unfaithful (Hermans et al., 2021), equation 4
        | https://arxiv.org/abs/2110.06581
        | Truncated Marginal Neural Ratio Estimation (Miller et al., 2021), section 2.3
        | https://arxiv.org/abs/2107.01214

    Example:
        >>> class Wide:  # the posterior is N(x / 2, 1 / 2)
        ...     def at(self, x):
        ...         return torch.distributions.Normal(x / 2, 1.0)
        ...     def sample(self, shape, x):
        ...         return self.at(x).sample(shape)
        ...     def log_prob(self, theta, x):
        ...         return self.at(x).log_prob(theta).sum(-1)
        >>> theta = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> x = theta + torch.randn(500, 1, generator=torch.Generator().manual_seed(1))
        >>> expected_coverage(Wide(), theta, x, n=200).verdict
        'too wide'
    """
    theta, x = pairs_of(theta, x)
    samples = draw(posterior, x, n, theta.shape[1], seed)
    true, *others = log_probs(posterior, torch.cat([theta[None].to(samples), samples]), x, seed)
    scores = torch.stack(others)
    return _coverage("regions of highest density", -scores, -true, seed, numpys(seed))


def tarp(
    posterior: Any,
    theta: ArrayLike | Tensor,
    x: ArrayLike | Tensor,
    *,
    n: int = 1000,
    references: ArrayLike | Tensor | None = None,
    seed: int = 0,
) -> Coverage:
    r"""Tests of accuracy with random points: coverage of balls around these.

    .. math:: c_i = q\big(d(\theta, r_i) < d(\theta^*_i, r_i) \mid x_i\big)

    estimated by n samples, with the Euclidean distance d of parameters scaled to the unit box of
    the true ones. No density is asked for. Only the posterior has uniform :math:`c_i` for points
    of every kind; points that do not depend on x do not tell it from the prior.

    Args:
        posterior: What has `sample(shape, x=...)`, or `sample_batched(shape, x)`: ours, or sbi's.
        theta: Parameters drawn from the prior, shape (N, D).
        x: What was simulated of each, shape (N, ...); simulations that the fit has not seen.
        n: Samples of each posterior.
        references: The random points, shape (N, D). If None, uniform in the box of `theta`.
        seed: Seed of all that is drawn; torch's own state is left alone.

    Raises:
        ValueError: If shapes do not fit, or parameters are not finite.

    References:
        | Sampling-Based Accuracy Testing of Posterior Estimators for General Inference (Lemos et
          al., 2023), algorithm 2
        | https://arxiv.org/abs/2302.03026

    Example:
        >>> class Exact:  # the posterior is N(x / 2, 1 / 2)
        ...     def sample(self, shape, x):
        ...         return x / 2 + torch.randn(*shape, 2) / 2**0.5
        >>> theta = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> x = theta + torch.randn(300, 2, generator=torch.Generator().manual_seed(1))
        >>> tarp(Exact(), theta, x, n=200).verdict
        'calibrated'
    """
    theta, x = pairs_of(theta, x)
    low, high, rng = theta.amin(0), theta.amax(0), numpys(seed)
    if references is None:
        points = low + (high - low) * torch.from_numpy(rng.random(theta.shape)).to(theta)
    else:
        points = torch.as_tensor(references).to(theta)
        if points.shape != theta.shape:
            raise ValueError(
                f"references: expected shape {tuple(theta.shape)} as theta, got"
                f" {tuple(points.shape)}"
            )
    samples = draw(posterior, x, n, theta.shape[1], seed)
    scale = torch.where(high > low, high - low, 1)
    away, true = (((some - points) / scale).norm(dim=-1) for some in (samples, theta))
    return _coverage("balls around random points", away, true, seed, rng)


def _coverage(
    regions: str, samples: Tensor, true: Tensor, seed: int, rng: np.random.Generator
) -> Coverage:
    """The coverage of regions that grow: samples enter at (n, N), the true parameters at (N,)."""
    less, equal = (samples < true).sum(0), (samples == true).sum(0)
    return Coverage(regions, uniform_ranks(less, equal, len(samples), rng), seed)
