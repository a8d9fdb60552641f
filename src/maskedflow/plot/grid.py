"""Grids that densities are evaluated on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .figures import Limits


def centres(limits: Limits, points: int) -> NDArray[np.float64]:
    """The centres of equal cells between two limits, shape (points,)."""
    low, high = limits
    return low + (high - low) * (np.arange(points) + 0.5) / points


def grid(limits: Sequence[Limits], points: int) -> NDArray[np.float64]:
    """The centres of equal cells of a box of D sides, shape (points ** D, D).

    The first column changes fastest: of two, rows of cells follow each other from the bottom.

    Example:
        >>> grid([(0, 2), (0, 20)], 2).tolist()
        [[0.5, 5.0], [1.5, 5.0], [0.5, 15.0], [1.5, 15.0]]
    """
    sides = np.meshgrid(*(centres(one, points) for one in reversed(limits)), indexing="ij")
    return np.stack([side.ravel() for side in reversed(sides)], axis=1)
