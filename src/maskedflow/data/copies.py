"""Rows that are copies of one another, and hashes by which rows are known again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from maskedflow.columns.grid import find_grid
from maskedflow.columns.numeric import ATOM, ATOM_ROWS

from .split import Array

GOLDEN = 0x9E3779B97F4A7C15
"""The golden ratio in 64 bits, by which SplitMix64 counts."""

RARE = 100.0
"""How many times as many values as rows it takes for a new row to hardly ever equal an old one."""

_PRECISION = 2.0**-23


def copies(columns: Sequence[Array], numbers: Sequence[Array]) -> NDArray[np.int64] | None:
    """For each row the first that it is a copy of, which may be itself; None without copies.

    Of the columns, given as arrays of numbers, some are quantities, which can tell rows apart.

    Example:
        >>> x = np.array([0.123, 4.567, 0.123, 8.901])
        >>> copies([x], [x]).tolist()
        [0, 1, 0, 3]
        >>> throws = np.array([0, 1, 0, 0])
        >>> copies([throws], [throws]) is None
        True
    """
    _, first, found = np.unique(row_hashes(columns), return_index=True, return_inverse=True)
    if len(first) == len(found):
        return None
    rows = np.arange(len(found))
    told = Grain.of(numbers).tells(numbers, len(rows), among=len(rows))
    group = np.where(told, first[found], rows)
    return None if (group == rows).all() else group


def row_hashes(columns: Iterable[Array]) -> NDArray[np.uint64]:
    """A number for each row, as good as random, which equal rows have in common.

    0 equals -0, NaN equals NaN, and a number is the same in float32, float64 or as an integer.

    Example:
        >>> one, other = row_hashes([np.array([0.0, -0.0])])
        >>> bool(one == other)
        True
    """
    hashes: Any = np.uint64(0)
    for column in columns:
        x = np.asarray(column, np.float64) + 0.0
        x[np.isnan(x)] = np.nan
        hashes = scrambled(hashes ^ x.view(np.uint64))
    return cast(NDArray[np.uint64], hashes)


def scrambled(x: Any) -> Any:
    """A permutation of the numbers of 64 bits, as good as random: a step of SplitMix64.

    References:
        | Fast splittable pseudorandom number generators (Steele, Lea, Flood, 2014), figure 17
        | https://doi.org/10.1145/2660193.2660195
    """
    with np.errstate(over="ignore"):
        x = x + np.uint64(GOLDEN)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Grain:
    r"""How finely numbers tell rows apart, to know whether equal rows are copies.

    Unrelated rows are hardly ever equal if there are more combinations of the values that their
    columns can take than there are rows. A round number that many rows share, such as no rain,
    tells nothing.

    `cells` are the logarithms of the number of values of each column: of whole numbers those there
    are, of others the cells of their grid, or what float32 can tell. `atoms` are the numbers of
    each column that many rows share.
    """

    cells: tuple[float, ...]
    atoms: tuple[Array, ...]

    @classmethod
    def of(cls, numbers: Iterable[Array]) -> Self:
        """The grain of columns, as many of them as are needed."""
        cells, atoms = [], []
        told: Any = 0.0
        for x in numbers:
            values, counts = np.unique(x[np.isfinite(x)] + 0.0, return_counts=True)
            many = (counts >= ATOM * len(x)) & (counts >= ATOM_ROWS)
            cells.append(_cells(values.astype(np.float64)))
            atoms.append(values[many & _round(values)])
            told = told + _told(x, cells[-1], atoms[-1])
            if told.min(initial=np.inf) > np.log(RARE * max(len(x), 1)):
                break
        return cls(tuple(cells), tuple(atoms))

    def tells(self, numbers: Iterable[Array], rows: int, among: float) -> NDArray[np.bool_]:
        """Which rows would hardly occur twice by chance `among` so many."""
        columns = zip(numbers, self.cells, self.atoms, strict=False)
        told = sum((_told(*column) for column in columns), start=np.zeros(rows))
        return np.greater(told, np.log(max(among, 1)))


def _told(x: Array, cells: float, atoms: Array) -> Array:
    return np.where(np.isfinite(x) & ~np.isin(x, atoms), cells, 0.0)


def _cells(values: NDArray[np.float64]) -> float:
    """The logarithm of the number of values that a column can take, of which it has these."""
    if len(values) < 2:
        return 0.0
    grid = find_grid(values, _PRECISION)
    if grid is None:
        return float(-np.log(_PRECISION))
    if grid.step >= 1:
        return float(np.log(len(values)))
    return float(np.log1p((values[-1] - values[0]) / grid.step))


def _round(values: Array) -> NDArray[np.bool_]:
    """Which numbers have three decimals at most, as far as float32 can tell."""
    scaled = 1000.0 * values.astype(np.float64)
    return np.less_equal(np.abs(scaled - np.rint(scaled)), 4 * _PRECISION * np.abs(scaled))
