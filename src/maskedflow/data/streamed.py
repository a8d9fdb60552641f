"""Training rows that stay on disk: statistics in one pass, and a shuffle through a buffer.

Which rows validate and test is a hash of their values, so that copies of a row go to one side and
nothing is kept of the others. An epoch reads the table's pieces (row groups of Parquet, runs of
lines of CSV) in a random order, as many at a time as fit into the buffer, and shuffles the rows
within it.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.sources import Source, open_source
from maskedflow.sources.numbers import blocks
from maskedflow.sources.source import ROWS

from .copies import GOLDEN, Grain, row_hashes, scrambled
from .dealing import Dealing
from .fingerprint import Fingerprint, Sketch
from .split import Split, columns_of

BUFFER = 2**23
"""Numbers that are shuffled at a time (32 MB), or one piece of the table if that has more."""

HELD = 100_000
"""The most rows that validate, that test, and that stand for the training rows."""

HELD_NUMBERS = 2**24
"""The most numbers in them."""

LOOKS = 8
"""Places of the table that tell whether equal rows are copies."""

SHARE = 8
"""A table is too large for memory if its numbers would take more than this part of it: reading,
splitting and shuffling take four times their space, and other programs need memory too."""


@dataclass(frozen=True)
class HashedRows:
    """A table on disk, each of whose rows has a hash that decides if it trains, validates or tests.

    A hash is a number in [0, 1), as good as random: of the row's values, or of its number where
    equal rows are no copies.
    """

    source: Source
    columns: tuple[str, ...]  # of features, and of the context behind them
    pieces: tuple[int, ...]  # the row that each begins at, and the number of all rows
    seed: int  # of the hashes
    dealing: Dealing  # by "values", or by the numbers of "rows" only
    grain: Grain = field(repr=False)  # how finely numbers tell the rows apart

    @classmethod
    def of(cls, source: Source, columns: tuple[str, ...], seed: int, dealing: Dealing) -> Self:
        """Those of a table, whose grain is told by blocks out of all its parts."""
        total = source.count()
        pieces = (*source.pieces(), total)
        starts = {pieces[i * (len(pieces) - 1) // LOOKS] for i in range(LOOKS)}
        looked_at = [torch.empty(0, len(columns))]
        for first in sorted(starts):
            last = min(first + ROWS // LOOKS, total)
            looked_at += [x for _, x in blocks(source, columns, first=first, last=last)]
        grain = Grain.of(columns_of(Split(torch.cat(looked_at))))
        return cls(source, columns, pieces, seed, dealing, grain)

    @property
    def total(self) -> int:
        """The number of rows."""
        return self.pieces[-1]

    @property
    def sampled(self) -> float:
        """The share of rows that stand for the training rows."""
        return min(HELD, HELD_NUMBERS // len(self.columns)) / max(self.total, 1)

    @property
    def held(self) -> float:
        """The share of rows that validate, and of those that test."""
        return min(0.1, self.sampled)

    def read(
        self, first: int, last: int, dtype: torch.dtype
    ) -> Iterator[tuple[NDArray[np.int64], Tensor, NDArray[np.float64]]]:
        """Rows from `first` to `last`, in blocks: their numbers, columns, and hashes."""
        start = np.random.SeedSequence(self.seed).generate_state(1, np.uint64)[0]
        for row, block in blocks(self.source, self.columns, dtype, first=first, last=last):
            rows = np.arange(row, row + len(block))
            with np.errstate(over="ignore"):
                keys = start + (rows.astype(np.uint64) - np.uint64(1)) * np.uint64(GOLDEN)
                if self.dealing == "values":
                    columns = columns_of(Split(block))
                    told = self.grain.tells(columns, len(block), self.total)
                    keys = np.where(told, start + row_hashes(columns), keys)
            yield rows, block, (scrambled(keys) >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class StreamedSplit:
    """Training rows that stay on disk.

    The other rows of the `table` validate or test; its first columns are the features.
    """

    table: HashedRows
    features: int
    counts: tuple[int, ...] = field(repr=False)  # the training rows in each piece of the table
    sample: Split = field(repr=False)  # some of the rows, in memory
    location: Tensor = field(repr=False)  # the mean of each column, in the dtype of the rows
    scale: Tensor = field(repr=False)  # the standard deviations, 1 where that is zero
    fingerprint: Fingerprint = field(repr=False)

    def __len__(self) -> int:
        return sum(self.counts)

    def in_float32(self) -> StreamedSplit:
        """The same rows, rounded to float32."""
        location, scale = self.location.float(), self.scale.float()
        return replace(self, sample=self.sample.in_float32(), location=location, scale=scale)

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """The mean and standard deviation of each feature."""
        return self.location[: self.features], self.scale[: self.features]

    @property
    def context_moments(self) -> tuple[Tensor, Tensor]:
        """Those of each column of the context."""
        return self.location[self.features :], self.scale[self.features :]

    def batches(
        self, bounds: Sequence[tuple[int, int]], seed: int
    ) -> Iterator[tuple[Tensor, Split]]:
        """Reads mini-batches of an epoch: the numbers of the rows in the table, and the rows.

        The bounds are the first and last position of each in the epoch's order, none before the one
        that precedes it; the order depends on nothing but the seed.
        """
        generator = torch.Generator().manual_seed(seed)
        pools = self._pools(torch.randperm(len(self.counts), generator=generator).tolist())
        seeds = torch.randint(2**62, (len(pools),), generator=generator).tolist()
        ends = [0, *accumulate(sum(self.counts[i] for i in pool) for pool in pools)]
        current, begin, end = -1, 0, 0
        width = len(self.table.columns)
        for position, last in bounds:
            parts = []
            while position < last:
                if not begin <= position < end:
                    current = bisect_right(ends, position) - 1
                    begin, end = ends[current : current + 2]
                    rows, x = self._read(pools[current])
                    order = torch.randperm(
                        len(x), generator=torch.Generator().manual_seed(seeds[current])
                    )
                chosen = order[position - begin : last - begin]
                parts.append((rows[chosen], x[chosen]))
                position += len(chosen)
            if not parts:  # of a process that has none of a batch's rows
                parts.append((torch.empty(0, dtype=torch.int64), self.location.new_empty(0, width)))
            row, block = (torch.cat(some) for some in zip(*parts, strict=True))
            yield row, split_of(block, self.features)

    def _pools(self, order: list[int]) -> list[list[int]]:
        """The pieces in order, as many together as fit into the buffer."""
        pools: list[list[int]] = []
        room = 0
        width = len(self.table.columns) + 4  # two of a row's numbers have 64 bits
        for piece in order:
            size = self.counts[piece] * width
            if not pools or size > room:
                pools.append([])
                room = BUFFER
            pools[-1].append(piece)
            room -= size
        return pools

    def _read(self, pool: list[int]) -> tuple[Tensor, Tensor]:
        """The training rows of some pieces: their numbers in the table, and all columns."""
        size = sum(self.counts[piece] for piece in pool)
        rows = torch.empty(size, dtype=torch.int64)
        x = torch.empty(size, len(self.table.columns), dtype=self.location.dtype)
        filled = 0
        for piece in pool:
            first, last = self.table.pieces[piece : piece + 2]
            for row, block, hashes in self.table.read(first, last, x.dtype):
                kept = hashes >= 2 * self.table.held
                count = int(kept.sum())
                if filled + count <= size:
                    rows[filled : filled + count] = torch.from_numpy(row[kept])
                    x[filled : filled + count] = block[torch.from_numpy(kept)]
                filled += count
        if filled != size:
            raise ValueError(f"{self.table.source.path}: has changed since training began")
        return rows, x


class Survey:
    """What one pass over a table finds: what its training rows are like, and rows to be kept."""

    def __init__(self, table: HashedRows, dtype: torch.dtype) -> None:
        self.counts = np.zeros(len(table.pieces) - 1, np.int64)  # of training rows in each piece
        self.moments = Moments(len(table.columns), dtype)
        self.sketch = Sketch(table.grain, table.total)
        empty = torch.empty(0, len(table.columns), dtype=dtype)
        parts = [empty], [empty], [empty]  # that validate, that test, and a sample of the others
        for row, block, hashes in table.read(0, table.total, dtype):
            training = hashes >= 2 * table.held
            self.counts += np.histogram(row[training], table.pieces)[0] if table.total else 0
            trained = block[torch.from_numpy(training)]
            self.moments.add(trained)
            told = columns_of(Split(trained))
            self.sketch.add(row_hashes(told), told)
            validates, sampled = hashes < table.held, training & (hashes >= 1 - table.sampled)
            chosen = validates, ~training & ~validates, sampled
            for part, rows in zip(parts, chosen, strict=True):
                part.append(block[torch.from_numpy(rows)])
        self.parts = tuple(map(torch.cat, parts))
        if not all(map(len, self.parts)):
            raise ValueError(
                f"{table.source.path}: expected rows to train, to validate and to test, "
                f"found {table.total} in all"
            )

    def some(self) -> tuple[Tensor, Tensor]:
        """The rows in memory and the ends of each column, and their numbers in random order."""
        ends = torch.stack([self.moments.low, self.moments.high])
        rows = torch.cat([*self.parts, ends])
        return rows, torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))


def too_large(path: str | os.PathLike[str] | Source) -> bool:
    """Whether a table's numbers, in float32, would take more than an eighth of the memory."""
    source = open_source(path)
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return False
    return 4 * source.estimate() * len(source.names) > memory / SHARE


def split_of(block: Tensor, features: int) -> Split:
    """Rows of all columns as features and context."""
    c = block[:, features:]
    return Split(block[:, :features], c if c.shape[1] else None)


class Moments:
    """Mean, deviation and range of columns, a block at a time in float64.

    References:
        | Updating formulae and a pairwise algorithm for computing sample variances
        | (Chan, Golub, LeVeque, 1979), equation 2.1
    """

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        self.n = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.squares = torch.zeros(width, dtype=torch.float64)
        self.low = torch.full((width,), torch.inf, dtype=dtype)
        self.high = torch.full((width,), -torch.inf, dtype=dtype)

    def add(self, block: Tensor) -> None:
        """Takes some more rows into account."""
        if not len(block):
            return
        variance, mean = torch.var_mean(block.double(), dim=0, correction=0)
        n, total = len(block), self.n + len(block)
        difference = mean - self.mean
        self.squares += n * variance + difference.square() * (self.n * n / total)
        self.mean += difference * (n / total)
        self.n = total
        self.low = torch.minimum(self.low, block.amin(0))
        self.high = torch.maximum(self.high, block.amax(0))

    def location_and_scale(self) -> tuple[Tensor, Tensor]:
        """The mean and deviation in the dtype of the rows; a constant column has scale 1."""
        scale = (self.squares / self.n).sqrt().to(self.low)
        scale[(self.low == self.high) | (scale == 0)] = 1
        return self.mean.to(self.low), scale
