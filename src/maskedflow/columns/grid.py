"""Numbers on a grid: finding it, counting its cells, and writing its numbers as they were."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

TOLERANCE = 0.01
"""How far from the grid a number may be, in steps: float32 has rounded it."""

DECIMALS = 6
"""The most decimals of a grid that is looked for."""

_FIFTEEN = 2.0**-48
"""The relative precision of fifteen decimal digits."""


@dataclass(frozen=True)
class Grid:
    """The numbers origin + k step, of which atoms and what is out of bounds are left out.

    The cells that are left are numbered without gaps, so that a density of the cells knows
    nothing of the atoms between them.

    Example:
        >>> grid = Grid(0.1, 0.5, atoms=(0.7,))
        >>> cells, off = grid.cells(np.array([0.5, 0.6, 0.8, 0.53]))
        >>> cells, off
        (array([0., 1., 2., 0.]), array([False, False, False,  True]))
        >>> grid.numbers(cells)
        array([0.5, 0.6, 0.8, 0.5])
    """

    step: float
    origin: float = 0.0  # has number 0 if there are no atoms below it
    low: float | None = None  # the smallest allowed
    high: float | None = None  # the largest allowed
    atoms: tuple[float, ...] = ()

    @property
    def _atoms(self) -> Numbers:
        return np.sort(np.rint((np.asarray(self.atoms, np.float64) - self.origin) / self.step))

    @property
    def left_out(self) -> tuple[int, ...]:
        """The cells of the atoms, counted from the origin as if none were left out."""
        return tuple(int(cell) for cell in self._atoms)

    @property
    def edges(self) -> tuple[float | None, float | None]:
        """Where the first cell begins and the last one ends, counted in cells."""
        atoms, low, high = self._atoms, None, None
        if self.low is not None:
            first = math.ceil((self.low - self.origin) / self.step - TOLERANCE)
            low = float(first - np.searchsorted(atoms, first))
        if self.high is not None:
            end = math.floor((self.high - self.origin) / self.step + TOLERANCE) + 1
            high = float(end - np.searchsorted(atoms, end))
        return low, high

    def cells(self, x: Numbers, *, strict: bool = True) -> tuple[Numbers, NDArray[np.bool_]]:
        """The number of the cell of each x, as a float, and whether x is no number of the grid.

        If not strict, one that lies between two is taken for the nearer.
        """
        cells, atoms = np.rint((x - self.origin) / self.step), self._atoms
        off = np.isin(cells, atoms)
        if strict:
            off |= self.between(x)
        cells -= np.searchsorted(atoms, cells)
        low, high = self.edges
        if low is not None:
            off |= cells < low
        if high is not None:
            off |= cells >= high
        return cells, off

    def between(self, x: Numbers) -> NDArray[np.bool_]:
        """Which x lie between the numbers of the grid."""
        exact = (x - self.origin) / self.step
        found: NDArray[np.bool_] = np.abs(exact - np.rint(exact)) > (
            TOLERANCE + 2.0**-51 * np.abs(exact)
        )
        return found

    def places(self, x: Numbers) -> Numbers:
        """Where any x lie, counted in cells: numbers of the grid at whole ones, others between."""
        exact = (x - self.origin) / self.step
        return np.asarray(exact - np.searchsorted(self._atoms, exact))

    def numbers(self, cells: NDArray[Any]) -> Numbers:
        """The number at each cell, to the decimals that step and origin have."""
        low, high = self.edges
        cells = np.clip(
            cells, -np.inf if low is None else low, np.inf if high is None else high - 1
        )
        for atom in self._atoms:
            cells = cells + (cells >= atom)
        numbers: Numbers = self.origin + self.step * cells
        decimals = max(decimals_of(self.step), decimals_of(self.origin))
        return np.round(numbers, decimals) if decimals <= 12 else numbers


def decimals_of(x: float) -> int:
    """How many decimals a number is written with."""
    exponent = Decimal(repr(float(x))).normalize().as_tuple().exponent
    return max(0, -int(exponent))


def find_grid(x: Numbers, precision: float = 2.0**-52) -> Grid | None:
    """The coarsest grid of decimal numbers that all x are on, if there is one.

    Example:
        >>> find_grid(np.array([0.25, 0.5, 1.75]))
        Grid(step=0.25, origin=0.25, low=None, high=None, atoms=())
        >>> find_grid(np.array([0.1234567, 0.5])) is None
        True
    """
    for decimals in range(DECIMALS + 1):
        scaled = x * 10.0**decimals
        whole = np.rint(scaled)
        # Files may hold fifteen digits of a decimal.
        near = max(precision, _FIFTEEN) if decimals else precision
        tolerance = 4 * near * np.abs(scaled)
        if tolerance.max() > TOLERANCE / 2:
            return None
        if (np.abs(scaled - whole) <= tolerance).all():
            units = whole.astype(np.int64)
            step = int(np.gcd.reduce(np.diff(units)))
            return Grid(step / 10**decimals, int(units[0]) / 10**decimals)
    return None
