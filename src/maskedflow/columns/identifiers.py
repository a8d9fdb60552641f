"""Columns that only name the rows: all cells differ, and no other column knows anything of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import chi2, norm, rankdata

from maskedflow.sources.arrow_types import is_category

from .cells import is_missing
from .column import Column

ROWS = 50
"""The fewest rows that tell."""
REPEATS = 10.0
"""The repeats that numbers drawn from so narrow a range would have: without any they are names."""
BLOCKS = 10
"""The parts, by the order of the names, in which other columns are compared."""
CHANCE = 1e-3
"""What chance a column may have to look as if it knew something of the names."""

Numbers = NDArray[np.float64]


def are_names(cells: pa.ChunkedArray) -> bool:
    """Whether cells are texts that all differ, and thus can be no categories.

    Example:
        >>> are_names(pa.chunked_array([[f"person {i}" for i in range(60)]]))
        True
    """
    known = cells.drop_null()
    return is_category(cells.type) and len(known) >= ROWS and len(known.unique()) == len(known)


def are_numbered(cells: pa.ChunkedArray) -> bool:
    """Whether cells are whole numbers that all differ, though others in their range would not.

    Of n numbers among m about n^2 / 2m repeat another one, and more if some are likelier.

    Example:
        >>> are_numbered(pa.chunked_array([range(60)]))
        True
        >>> are_numbered(pa.chunked_array([[i**4 for i in range(60)]]))
        False
    """
    if not pa.types.is_integer(cells.type) or len(cells) < ROWS or is_missing(cells).any():
        return False
    x = cells.to_numpy()
    among = float(x.max()) - float(x.min()) + 1
    return len(np.unique(x)) == len(x) and len(x) ** 2 / (2 * among) >= REPEATS


def is_unknown(names: Numbers, others: Sequence[tuple[Column, Numbers]]) -> bool:
    """Whether other columns are in no order, block by block and cell by cell, by that of names."""
    order, tests = names.argsort(), 2 * len(others)
    return all(p >= CHANCE / tests for column, x in others for p in _p_values(column, x[order]))


def _p_values(column: Column, x: Numbers) -> tuple[float, float]:
    """How likely blocks that differ as much, and neighbours that are as alike, are by chance.

    Missing cells are one of the values.
    """
    x = np.where(np.isnan(x), np.inf, x)
    n, block = len(x), np.arange(len(x)) * BLOCKS // len(x)
    if column.part == "codes" and not column.ordered:
        values, code = np.unique(x, return_inverse=True)
        table = np.zeros((BLOCKS, len(values)))
        np.add.at(table, (block, code), 1)
        expected = table.sum(1, keepdims=True) * table.sum(0) / n
        blocks = ((table - expected) ** 2 / expected).sum() * (n - 1) / n
        freedom = (BLOCKS - 1) * (len(values) - 1)
        same = np.mean(x[1:] == x[:-1])
        by_chance = ((table.sum(0) / n) ** 2).sum()
        spread = np.sqrt(by_chance * (1 - by_chance) / (n - 1))
    else:
        rank = rankdata(x)
        rank = (rank - rank.mean()) / rank.std()
        sums, sizes = np.bincount(block, rank), np.bincount(block)
        blocks, freedom = (sums**2 / sizes).sum() * (n - 1) / n, BLOCKS - 1
        same, by_chance, spread = np.mean(rank[1:] * rank[:-1]), 0.0, 1 / np.sqrt(n - 1)
    return float(chi2.sf(blocks, freedom)), float(2 * norm.sf(abs(same - by_chance) / spread))
