"""Samples of one posterior as weighted samples of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from maskedflow.training import ImportanceSample

from .inputs import log_shares, log_values, rows_of
from .named import NamedDensity
from .refit import fit_draws
from .weights import psis, warn_unless_trusted


@dataclass(frozen=True, eq=False)
class WeightedSample(ImportanceSample):
    r"""Weighted rows of named columns; see :class:`~maskedflow.training.ImportanceSample`.

    Attributes:
        x: The rows, shape (n, D).
        log_weights: The logarithms of their weights, float64, shape (n,).
        columns: The names of the columns.

    Example:
        >>> sample = WeightedSample(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 0.0]), ("a",))
        >>> sample.mean, round(sample.ess, 3)
        (tensor([0.5000], dtype=torch.float64), 2.0)
    """

    columns: tuple[str, ...]

    @cached_property
    def khat(self) -> float:
        r"""The shape :math:`\hat k` of the tail of the weights, see :func:`psis`."""
        return psis(self.log_weights)[1]

    def smoothed(self) -> Self:
        """The same rows with the largest weights smoothed by :func:`psis`."""
        return replace(self, log_weights=psis(self.log_weights)[0])

    def resample(self, n: int, seed: int = 0) -> Tensor:
        """Draws n rows with replacement, in proportion to their weights, shape (n, D).

        Copies are likely where the weights are worth fewer than n draws.
        """
        generator = torch.Generator().manual_seed(seed)
        total = self.weights.cumsum(dim=0)
        level = torch.rand(n, dtype=torch.float64, generator=generator) * total[-1]
        return self.x[torch.searchsorted(total, level).clamp(max=len(total) - 1)]

    def fit(self, seed: int = 0) -> NamedDensity:
        """Fits a flow of splines to the weighted rows; `held_out` says how well."""
        flow, held_out = fit_draws(self.x, weight=self.weights, seed=seed)
        found = NamedDensity.of(flow, self.columns)
        return replace(found, held_out=held_out)


def reweight(
    samples: Any,
    new: Any,
    old: Any,
    *,
    weights: Any = None,
    columns: Sequence[str] | None = None,
    n: int = 10_000,
    seed: int = 0,
) -> WeightedSample:
    r"""Weighs samples of a posterior as those of one with another prior or likelihood.

    .. math:: w_i \propto \frac{\pi_\text{new}(x_i)}{\pi_\text{old}(x_i)} \quad \text{or} \quad
        \frac{L_\text{new}(x_i)}{L_\text{old}(x_i)}

    `log_z` of the result is the logarithm of the ratio of the two evidences, if densities are
    normalised (priors), or as they are used (likelihoods).

    Args:
        samples: Rows, shape (n, D), or a density to draw them from, as of :meth:`NamedDensity.of`.
        new: What comes in: a density; a function of rows (n, D) that gives its logarithm, shape
            (n,); or these numbers themselves.
        old: What goes out, alike. Where it is zero no sample should be.
        weights: How much each row counts already, shape (n,).
        columns: The names of rows without names.
        n: The number of rows to draw.
        seed: Seed of the draws.

    Raises:
        ValueError: If shapes do not fit, a logarithm is NaN, or `old` is zero at a sample.

    Warns:
        UserWarning: If the weights are worth fewer than 50 draws, or their tail is too heavy.

    References:
        Pareto Smoothed Importance Sampling (Vehtari et al., 2015), https://arxiv.org/abs/1507.02646

    Example:
        >>> from maskedflow.distributions import DiagNormal
        >>> wide, narrow = (DiagNormal(torch.zeros(1), s * torch.ones(1)) for s in (1.0, 0.5))
        >>> sample = reweight(wide, narrow, wide, n=4000)
        >>> bool((sample.std - 0.5).abs() < 0.02), sample.ess > 2000
        (True, True)
    """
    names, x = rows_of(samples, columns, n, seed)
    before, after = log_values("old", old, x, names), log_values("new", new, x, names)
    if (before == -torch.inf).any():
        row = int((before == -torch.inf).nonzero()[0])
        raise ValueError(
            f"old: expected a density above zero at each sample, got zero at row {row}"
        )
    found = WeightedSample(x, log_shares(weights, len(x)) + after - before, names)
    if found.log_weights.max() == -torch.inf:
        raise ValueError("new: expected a density above zero at some sample, got zero at each")
    advice = "the two are too far apart, sample the new one"
    warn_unless_trusted("the new posterior", found.ess, found.khat, len(x), advice)
    return found
