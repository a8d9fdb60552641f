"""Draws of Markov chains, and how much they are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chains:
    r"""Draws of several Markov chains of the same density, without those of the warm-up.

    Attributes:
        samples: The draws, with shape (draws, chains, features).
        log_density: The unnormalised log-density at each, in nats, with shape (draws, chains).
        acceptance: The share of proposals that each chain accepted, with shape (chains,).
        evaluations: How often the log-density was computed, at one point each, warm-up included.
        gradients: How many of those were with a gradient.

    Example:
        >>> x = torch.randn(500, 4, 2, generator=torch.Generator().manual_seed(0))
        >>> chains = Chains(x, -0.5 * x.square().sum(-1), torch.ones(4), 2000, 0)
        >>> chains.flat().shape
        torch.Size([2000, 2])
        >>> bool((chains.rhat() < 1.01).all() and (chains.ess() > 1500).all())
        True
    """

    samples: Tensor
    log_density: Tensor
    acceptance: Tensor
    evaluations: int
    gradients: int

    def flat(self) -> Tensor:
        """The draws of all chains, with shape (draws * chains, features)."""
        return self.samples.flatten(0, 1)

    def ess(self) -> Tensor:
        r"""The bulk effective sample size of each feature, with shape (features,).

        It is that of the halves of the chains, of M of N draws each, after their ranks were mapped
        to N(0, 1). The autocorrelations within chains and the variance between them make

        .. math:: \mathrm{ESS} = \frac{M N}{-1 + 2 \sum_k P_k}, \quad
            P_k = \hat\rho_{2k} + \hat\rho_{2k+1},

        where the sum ends before the first :math:`P_k` that is not positive, and none is larger
        than the one before it. Chains in different modes have few effective draws, however many
        there are. It is NaN where the draws are all the same.

        Raises:
            ValueError: If there are fewer than 8 draws of a chain.

        References:
            Rank-normalization, folding, and localization: An improved R-hat (Vehtari et al., 2021),
            equations 10 to 14, https://arxiv.org/abs/1903.08008
        """
        return torch.stack([_ess(_normal_scores(x)) for x in self._halves()])

    def rhat(self) -> Tensor:
        r"""The rank-normalised split R-hat of each feature, with shape (features,).

        .. math:: \hat R = \sqrt{\frac{N - 1}{N} + \frac{B}{N W}}

        with the variance W within the halves of chains of N draws each, and B / N between their
        means. It is the larger of two, of the draws (do chains agree on the location?) and of
        their distances from the median (on the scale?). Beyond 1.01 the chains are not to be
        trusted. It is NaN where the draws are all the same.

        Raises:
            ValueError: If there are fewer than 8 draws of a chain.

        References:
            Rank-normalization, folding, and localization: An improved R-hat (Vehtari et al., 2021),
            equation 4 and section 3.2, https://arxiv.org/abs/1903.08008
        """
        found = []
        for x in self._halves():
            folded = (x - x.quantile(0.5)).abs()
            found.append(torch.maximum(*(_rhat(_normal_scores(y)) for y in (x, folded))))
        return torch.stack(found)

    def _halves(self) -> Tensor:
        """Each half of a chain as a chain, in double precision: (features, N, M)."""
        half = len(self.samples) // 2
        if half < 4:
            raise ValueError(f"samples: expected at least 8 draws, got {len(self.samples)}")
        x = self.samples.double()
        return torch.cat([x[:half], x[-half:]], dim=1).movedim(-1, 0)


def _normal_scores(x: Tensor) -> Tensor:
    """The normal quantiles of the ranks; those that are the same have the mean of their ranks."""
    _, place, counts = x.unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - 0.5 * (counts.double() - 1))[place]
    scores: Tensor = torch.special.ndtri((ranks - 0.375) / (x.numel() + 0.25))
    return scores


def _variances(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean variance within chains, (N, M), and their variance together."""
    within, n = x.var(dim=0).mean(), len(x)
    return within, within * (n - 1) / n + x.mean(dim=0).var()


def _rhat(x: Tensor) -> Tensor:
    within, total = _variances(x)
    return (total / within).sqrt()


def _ess(x: Tensor) -> Tensor:
    within, total = _variances(x)
    n = len(x)
    spectrum = torch.fft.rfft(x - x.mean(dim=0), n=2 * n, dim=0).abs().square()
    covariance = torch.fft.irfft(spectrum, n=2 * n, dim=0)[:n].mean(dim=1) / n
    correlation = 1 - (within - covariance) / total
    correlation[0] = 1
    pairs = correlation[: n - n % 2].reshape(-1, 2).sum(dim=1)
    positive = (pairs > 0).cumprod(dim=0)
    length = 2 * (pairs.cummin(dim=0).values * positive).sum() - 1
    # Chains that swing may be better than independent draws, but no estimate says by how much.
    return x.numel() / torch.clamp(length, min=1 / math.log10(x.numel()))
