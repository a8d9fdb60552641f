"""Training on a table that stays on disk: statistics in one pass, and a shuffle through a buffer.

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
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.sources import Source, open_source
from maskedflow.sources.numbers import floats, numbers
from maskedflow.sources.source import ROWS

from .dataset import Dataset, Split
from .discrete import find_cells, needs_float64, notes_on
from .fingerprint import Fingerprint, Sketch
from .split import (
    GOLDEN,
    Dealing,
    Grain,
    check_dealing,
    columns_of,
    row_hashes,
    scrambled,
)
from .table import check_range, roles

BUFFER = 2**23
"""Numbers that are shuffled at a time (32 MB), or one piece of the table if that has more."""

HELD = 100_000
"""The most rows that validate, that test, and that stand for the training rows."""

HELD_NUMBERS = 2**24
"""The most numbers in them."""

LOOKS = 8
"""Places of the table that tell whether equal rows are copies."""

SHARE = 8
"""A table is too large for memory if its numbers would take more than this part of it: to read,
split and shuffle takes four times their place, and others need memory too."""


@dataclass(frozen=True)
class StreamedSplit:
    """Training rows that stay on disk.

    Args:
        source: The table.
        columns: The columns of features, and of the context behind them.
        features: The number of features.
        held: The fraction of rows that are none of these: they validate or test.
        seed: Seed of which.
        grain: How finely their numbers tell rows apart; None if each is dealt by itself.
        pieces: The row that each piece of the table begins at, and the number of all rows.
        counts: The training rows in each piece.
        sample: Some of the rows, in memory.
        location: The mean of each column over all training rows, in the dtype of the rows.
        scale: The standard deviations, 1 where that is zero.
        fingerprint: By which the rows can be known again.
    """

    source: Source
    columns: tuple[str, ...]
    features: int
    held: float
    seed: int
    grain: Grain | None = field(repr=False)
    pieces: tuple[int, ...] = field(repr=False)
    counts: tuple[int, ...] = field(repr=False)
    sample: Split = field(repr=False)
    location: Tensor = field(repr=False)
    scale: Tensor = field(repr=False)
    fingerprint: Fingerprint = field(repr=False)

    def __len__(self) -> int:
        return sum(self.counts)

    def in_float32(self) -> StreamedSplit:
        """The same rows, rounded to float32."""
        x, c = self.sample.x.float(), self.sample.context
        sample = Split(x, None if c is None else c.float())
        location, scale = self.location.float(), self.scale.float()
        return replace(self, sample=sample, location=location, scale=scale)

    @property
    def moments(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Location and scale of the features, and those of the context."""
        x, c = (
            (self.location[part], self.scale[part])
            for part in (slice(self.features), slice(self.features, None))
        )
        return x, c

    def batches(
        self, bounds: Sequence[tuple[int, int]], seed: int
    ) -> Iterator[tuple[Tensor, Split]]:
        """Reads mini-batches of an epoch, from any of them on.

        Args:
            bounds: The first and last position of each in the epoch's order, one after another.
            seed: Seed of this order, which depends on nothing else.

        Yields:
            The numbers of the rows in the table, from 0, and the rows.
        """
        generator = torch.Generator().manual_seed(seed)
        pools = self._pools(torch.randperm(len(self.counts), generator=generator).tolist())
        seeds = torch.randint(2**62, (len(pools),), generator=generator).tolist()
        ends = [0, *accumulate(sum(self.counts[i] for i in pool) for pool in pools)]
        current, begin, end = -1, 0, 0
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
            row, block = (torch.cat(some) for some in zip(*parts, strict=True))
            yield row, _split(block, self.features)

    def _pools(self, order: list[int]) -> list[list[int]]:
        """The pieces in order, as many together as fit into the buffer."""
        pools: list[list[int]] = []
        room = 0
        for piece in order:
            size = self.counts[piece] * (len(self.columns) + 4)  # two of its numbers have 64 bits
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
        x = torch.empty(size, len(self.columns), dtype=self.location.dtype)
        filled = 0
        for piece in pool:
            first, last = self.pieces[piece : piece + 2]
            for row, block in _blocks(self.source, self.columns, first, last, x.dtype):
                kept = _shares(row, block, self.grain, self.pieces[-1], self.seed) >= self.held
                count = int(kept.sum())
                if filled + count <= size:
                    rows[filled : filled + count] = torch.from_numpy(row[kept])
                    x[filled : filled + count] = block[torch.from_numpy(kept)]
                filled += count
        if filled != size:
            raise ValueError(f"{self.source.path}: has changed since training began")
        return rows, x


def open_streamed(
    path: str | os.PathLike[str],
    *,
    context: Sequence[str] = (),
    seed: int = 0,
    dealing: Dealing = "values",
    continuous: bool = False,
) -> Dataset:
    """Opens your own table as a data set whose training rows stay on disk.

    One pass over the table finds mean, scale and range of the training rows and makes sure that
    every cell is a finite number; another one follows if float32 does not tell them apart. Whether
    a row validates or tests is a hash of its values, or of its number where equal rows are no
    copies: a tenth of the rows each, but at most about 100,000, which are in memory as is a sample
    of the training rows. From these follows which features are dequantised.

    Args:
        path: A `.csv` (with a header) or `.parquet` file, or a folder of `.parquet` files.
        context: The columns to condition on; the others are the features.
        seed: Which rows go where.
        dealing: "values", or "rows" to go by the rows' numbers only, as earlier versions did.
        continuous: Whether to leave values on a grid as they are.

    Returns:
        The data set. Its `train` is the sample of the training rows; `streamed` stands for all.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As :func:`maskedflow.data.open_table`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from maskedflow.data import write_table
        >>> path = Path(tempfile.mkdtemp()) / "heights.parquet"
        >>> write_table(path, ["age", "height"], [torch.randn(1000, 2)])
        1000
        >>> table = open_streamed(path, context=["age"])
        >>> len(table.streamed) + len(table.validation) + len(table.test)
        1000
    """
    source = open_source(path)
    features, context = roles(source, context)
    columns = (*features, *context)
    total = source.count()
    held = min(HELD, HELD_NUMBERS // len(columns)) / max(total, 1)
    check_dealing(dealing)
    pieces = [*source.pieces(), total]
    grain = _grain(source, columns, pieces)
    by = grain if dealing == "values" else None
    survey = partial(_survey, source, columns, pieces, held, seed, grain, by)
    table = survey(torch.float32)
    if needs_float64(*table.some()):
        exact = survey(torch.float64)
        table = exact if needs_float64(*exact.some()) else table
    moments, width = table.moments, len(features)
    low, high = moments.low[:width], moments.high[:width]
    check_range(low, high, features, source.path, moments.n)
    some, order = table.some()
    cells, without = (None, []) if continuous else find_cells(some[:, :width], order, features)
    location, scale = moments.location_and_scale()
    splits = {name: _split(block, width) for name, block in table.parts.items()}
    streamed = StreamedSplit(
        source,
        columns,
        width,
        2 * min(0.1, held),
        seed,
        by,
        tuple(pieces),
        tuple(table.counts.tolist()),
        splits["sample"],
        location,
        scale,
        table.sketch.fingerprint(),
    )
    return Dataset(
        source.path.stem,
        splits["sample"],
        splits["validation"],
        splits["test"],
        features,
        context,
        streamed=streamed,
        dealing=dealing,
        cells=cells,
        notes=(*source.notes, *notes_on(features, cells, without)),
    )


@dataclass(frozen=True)
class _Survey:
    """What one pass over a table finds.

    Args:
        counts: The training rows in each piece.
        moments: Mean, deviation and range of the training rows.
        parts: The rows that validate and test, and a sample of those that train.
        sketch: By which training rows are known again.
    """

    counts: NDArray[np.int64]
    moments: _Moments
    parts: dict[str, Tensor]
    sketch: Sketch

    def some(self) -> tuple[Tensor, Tensor]:
        """The rows in memory and the ends of each column, and their numbers in random order."""
        ends = torch.stack([self.moments.low, self.moments.high])
        rows = torch.cat([*self.parts.values(), ends])
        return rows, torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))


def _survey(
    source: Source,
    columns: tuple[str, ...],
    pieces: Sequence[int],
    held: float,
    seed: int,
    grain: Grain,
    by: Grain | None,
    dtype: torch.dtype,
) -> _Survey:
    """Reads the whole table once, in a dtype.

    Raises:
        ValueError: If a cell is no finite number, or rows are few.
    """
    fraction, total = min(0.1, held), pieces[-1]
    counts = np.zeros(len(pieces) - 1, np.int64)
    moments, sketch = _Moments(len(columns), dtype), Sketch(grain, total)
    parts: dict[str, list[Tensor]] = {"validation": [], "test": [], "sample": []}
    for row, block in _blocks(source, columns, 0, total, dtype):
        share = _shares(row, block, by, total, seed)
        training = share >= 2 * fraction
        counts += np.histogram(row[training], pieces)[0] if total else 0
        trained = block[torch.from_numpy(training)]
        moments.add(trained)
        told = columns_of(Split(trained))
        sketch.add(row_hashes(told), told)
        for name, chosen in (
            ("validation", share < fraction),
            ("test", (share >= fraction) & ~training),
            ("sample", training & (share >= 1 - held)),
        ):
            parts[name].append(block[torch.from_numpy(chosen)])
    empty = torch.empty(0, len(columns), dtype=dtype)
    found = {name: torch.cat([empty, *some]) for name, some in parts.items()}
    if not all(map(len, found.values())):
        raise ValueError(
            f"{source.path}: expected rows to train, to validate and to test, found {total} in all"
        )
    return _Survey(counts, moments, found, sketch)


def too_large(path: str | os.PathLike[str]) -> bool:
    """Whether a table's numbers, in float32, would take more than an eighth of the memory."""
    source = open_source(path)
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return False
    return 4 * source.estimate() * len(source.names) > memory / SHARE


def _blocks(
    source: Source, columns: tuple[str, ...], first: int, last: int, dtype: torch.dtype
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Rows from `first` to `last`: their numbers, and columns, checked."""
    for batch in source.batches(columns, floats(columns), first=first, last=last):
        block = numbers(batch, columns, source, first, dtype)
        yield np.arange(first, first + len(block)), block
        first += len(block)


def _split(block: Tensor, features: int) -> Split:
    """Rows of all columns as features and context."""
    c = block[:, features:]
    return Split(block[:, :features], c if c.shape[1] else None)


def _grain(source: Source, columns: tuple[str, ...], pieces: Sequence[int]) -> Grain:
    """How finely numbers tell rows apart, from blocks out of all parts of the table."""
    total = pieces[-1]
    starts = [pieces[i * (len(pieces) - 1) // LOOKS] for i in range(LOOKS)]
    blocks = [torch.empty(0, len(columns))]
    for first in sorted(set(starts)):
        last = min(first + ROWS // LOOKS, total)
        blocks += [block for _, block in _blocks(source, columns, first, last, torch.float32)]
    return Grain.of(columns_of(Split(torch.cat(blocks))))


def _shares(
    rows: NDArray[np.int64], block: Tensor, grain: Grain | None, total: int, seed: int
) -> NDArray[np.float64]:
    """A number in [0, 1) for each row, as good as random: of its values, or of its number."""
    start = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        keys = start + (rows.astype(np.uint64) - np.uint64(1)) * np.uint64(GOLDEN)
        if grain is not None:
            columns = columns_of(Split(block))
            told = grain.tells(columns, len(block), total)
            keys = np.where(told, start + row_hashes(columns), keys)
    uniform: NDArray[np.float64] = (scrambled(keys) >> np.uint64(11)) * 2.0**-53
    return uniform


class _Moments:
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
