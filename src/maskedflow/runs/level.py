"""Draws that run away: which log-density is too low for a draw, and what becomes of these."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from maskedflow.data import Split
from maskedflow.training.randomness import derive_seed

from .density import FlowDensity

__all__ = ["Draws", "Tally", "level_of"]

ROWS = 10_000
"""The training rows, chosen at random, that tell a level."""

TRIES = 100
"""How often a draw may be too low until there seem to be no others."""


def level_of(density: FlowDensity, train: Split) -> float | None:
    r"""A log-density, in nats, that is far below those of all training rows.

    .. math:: \ell = m - 2 \, (m - \min_i \log p(x_i)), \qquad m = \mathrm{median}_i \log p(x_i)

    It is as far below the lowest of them as that is below the median, whatever the units and the
    number of features. 10,000 training rows tell it, at the price of their densities.

    Args:
        density: The density that was trained.
        train: Its training rows, without errors; those of weight 0 do not count.

    Returns:
        The level; None if no row has a finite log-density.
    """
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    part = train[order[:ROWS]]
    if part.weight is not None:
        part = part[part.weight > 0]
    log_prob = density.log_prob(part.x, part.context)
    log_prob = log_prob[log_prob.isfinite()]
    if not len(log_prob):
        return None
    return float(2 * log_prob.min() - log_prob.median())


@dataclass
class Tally:
    """How many draws there were, and how many of them were below a level or not finite.

    Args:
        level: The level, in nats.
        within: Whether others took their places, which count as draws, too.
        drawn: How many draws there were so far.
        low: How many of them were too low.
    """

    level: float
    within: bool
    drawn: int = 0
    low: int = 0

    def __add__(self, other: Tally) -> Tally:
        return replace(self, drawn=self.drawn + other.drawn, low=self.low + other.low)

    def warn(self) -> None:
        """Warns of draws that were too low, if there were some, and says how likely others are."""
        if not self.low:
            return
        counted = f"{self.low:,} of {self.drawn:,} draws"
        below = f"a log-density below {self.level:.1f} nats, far below all training rows'"
        share = 1 - self.low / self.drawn
        error = 2 * math.sqrt(share * (1 - share) / self.drawn)
        warnings.warn(
            f"{counted} had {below}, and others took their places: of these the density is the "
            f"run's divided by their probability, {share:.4f} ± {error:.4f}"
            if self.within
            else f"{counted} have {below}; within=True (--within) puts others in their places",
            stacklevel=2,
        )


@dataclass
class Draws:
    """Draws of a flow, of which those below a level are counted, or others take their places.

    Args:
        density: The flow's density.
        tally: The level, and what was counted so far.
    """

    density: FlowDensity = field(repr=False)
    tally: Tally

    def sample(self, n: int, context: Tensor | None = None, *, seed: int) -> Tensor:
        """Draws n rows, one for each context if there are some.

        Raises:
            ValueError: If one is too low a hundred times.
        """
        x = self.density.sample(n, context, seed=seed)
        low = self._is_low(x, context)
        tries = 1
        while self.tally.within and low.any():
            if tries == TRIES:
                raise ValueError(
                    f"within: {TRIES} draws of a row had a log-density below "
                    f"{self.tally.level:.1f} nats"
                )
            rows = low.nonzero().flatten()
            c = None if context is None else context[rows]
            x[rows] = self.density.sample(len(rows), c, seed=derive_seed(seed, tries))
            low[rows] = self._is_low(x[rows], c)
            tries += 1
        return x

    def _is_low(self, x: Tensor, context: Tensor | None) -> Tensor:
        finite = x.isfinite().all(dim=1)
        log_prob = self.density.log_prob(x.nan_to_num(), context)
        low = ~finite | (log_prob < self.tally.level)
        self.tally.drawn += len(x)
        self.tally.low += int(low.sum())
        return low
