"""Densities of one or two numbers that are known up to a factor, on a grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

POINTS = {1: 2048, 2: 256}
"""Cells along each axis, by the number of axes."""
DEPTH = 25.0
"""Nats below the highest density at which there is nothing left."""
_ROUNDS = 40


@dataclass(frozen=True, eq=False)
class Grid:
    r"""An unnormalised density at the centres of cells, by the midpoint rule.

    .. math:: \log Z = \log \sum_i \tilde p(x_i) \, \Delta x

    Args:
        centres: The centres of the cells, shape (cells, D).
        width: The widths of a cell, shape (D,).
        log_prob: The unnormalised log-density there, shape (cells,).

    Example:
        >>> grid = Grid.around(lambda x: -0.5 * x[:, 0] ** 2, torch.tensor([[-1.0, 1.0]]))
        >>> abs(grid.log_z - 0.5 * math.log(2 * math.pi)) < 1e-6
        True
    """

    centres: Tensor
    width: Tensor
    log_prob: Tensor

    @classmethod
    def around(cls, log_prob: Callable[[Tensor], Tensor], ranges: Tensor) -> Grid:
        """Finds where the density is, beginning with ranges of each axis, shape (D, 2).

        Raises:
            ValueError: If it is zero all over these.
        """
        low, high = ranges.double().unbind(dim=1)
        for _ in range(_ROUNDS):
            grid = cls._at(log_prob, low, high)
            highest = grid.log_prob.max().item()
            if highest == -math.inf:
                raise ValueError("given: the density is zero there")
            there = grid.centres[grid.log_prob > highest - DEPTH]
            first, last = there.amin(dim=0) - grid.width, there.amax(dim=0) + grid.width
            wide, touched_low, touched_high = high - low, first < low, last > high
            shrinks = (last - first) < 0.5 * wide
            new_low = torch.where(touched_low, low - wide / 2, torch.where(shrinks, first, low))
            new_high = torch.where(touched_high, high + wide / 2, torch.where(shrinks, last, high))
            if torch.equal(new_low, low) and torch.equal(new_high, high):
                return grid
            low, high = new_low, new_high
        return grid

    @classmethod
    def _at(cls, log_prob: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Grid:
        points = POINTS[len(low)]
        width = (high - low) / points
        steps = (torch.arange(points) + 0.5).double()
        axes = [start + steps * step for start, step in zip(low, width, strict=True)]
        centres = torch.cartesian_prod(*axes).reshape(-1, len(low))
        return cls(centres, width, log_prob(centres).double())

    @property
    def log_z(self) -> float:
        """The logarithm of the integral."""
        return self.log_prob.logsumexp(dim=0).item() + self.width.log().sum().item()

    def sample(self, n: int, seed: int) -> Tensor:
        """Draws n points, uniform within their cells."""
        generator = torch.Generator().manual_seed(seed)
        total = self.log_prob.softmax(dim=0).cumsum(dim=0)
        level = torch.rand(n, dtype=torch.float64, generator=generator) * total[-1]
        cell = torch.searchsorted(total, level).clamp(max=len(total) - 1)
        place = torch.rand(n, len(self.width), dtype=torch.float64, generator=generator) - 0.5
        return self.centres[cell] + place * self.width
