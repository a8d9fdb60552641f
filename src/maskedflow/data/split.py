"""Which rows go where: dealt at random, with copies of a row on the same side.

A Markov chain, a bootstrap or a weighted sample holds rows several times. If one copy trains and
another tests, a flow that has learnt its rows by heart looks best. Where columns take few values,
though, equal rows are no copies: each toss of a coin is a row of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.columns.grid import find_grid
from maskedflow.columns.numeric import ATOM, ATOM_ROWS
from maskedflow.transforms.normalization import weighted_moments

Array = NDArray[Any]

Dealing = Literal["rows", "values"]
"""Whether each row is dealt by itself, as in earlier versions, or copies go to one side."""

GOLDEN = 0x9E3779B97F4A7C15
"""The golden ratio in 64 bits, by which SplitMix64 counts."""

RARE = 100.0
"""How many times as many values as rows it takes for a new row to hardly ever equal an old one."""

_PRECISION = 2.0**-23


@dataclass(frozen=True)
class Split:
    """The rows of one part of a data set.

    Args:
        x: The data in their own units, shape `(n, features)`: uint8 for images, float32 otherwise,
            or float64 where float32 would not tell numbers apart. Windows of a time series have
            shape `(n, steps, features)`.
        context: The condition of each row, shape `(n, context)` or `(n, steps, context)`, or None.
            For a flow with an embedding network any shape `(n, ...)`: series, images, token ids.
        weight: How much each row counts, shape `(n,)`, from 0 and finite; all alike if None. Only
            ratios matter: a row of weight 2 is in all means as two rows.
        checked: Whether all numbers are known to be finite, as those of a file are; training looks
            at others.

    Raises:
        ValueError: If `x` has another shape, the numbers of rows differ, or a weight is negative or
            not finite.

    Example:
        >>> len(Split(torch.zeros(5, 2)))
        5
        >>> split = Split(torch.tensor([[0.0], [3.0]]), weight=torch.tensor([2.0, 1.0]))
        >>> split.mean(split.x[:, 0]), round(split.effective, 2)
        (1.0, 1.8)
    """

    x: Tensor
    context: Tensor | None = None
    weight: Tensor | None = None
    checked: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.x.ndim not in (2, 3):
            raise ValueError(f"x: expected shape (n, features), got {tuple(self.x.shape)}")
        if self.context is not None and self.context.shape[:1] != self.x.shape[:1]:
            raise ValueError(
                f"context: expected shape ({len(self.x)}, context), got {tuple(self.context.shape)}"
            )

        if self.weight is not None:
            check_weight(self.weight, len(self.x))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | Tensor) -> Split:
        context, weight = self.context, self.weight
        return Split(
            self.x[rows],
            None if context is None else context[rows],
            None if weight is None else weight[rows],
        )

    @cached_property
    def mass(self) -> Tensor:
        """The weights in float64, 1 where none are given."""
        if self.weight is None:
            return torch.ones(len(self.x), dtype=torch.float64, device=self.x.device)
        return self.weight.double()

    @property
    def effective(self) -> float:
        """The number of rows of equal weight that are worth as much, see :func:`effective`."""
        return float(len(self)) if self.weight is None else effective(self.weight)

    def mean(self, values: Tensor) -> float:
        """The mean of a number for each row, such as its log-density, as exact as can be."""
        # torch's mean of many numbers depends, in its last digit, on the number of threads.
        if self.weight is None:
            return math.fsum(values.tolist()) / len(values)
        kept = self.weight > 0  # elsewhere a density may be 0
        mass = self.mass[kept]
        return math.fsum((mass * values.to(mass)[kept]).tolist()) / math.fsum(mass.tolist())

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """The mean and standard deviation of each feature, see :func:`location_and_scale`."""
        return location_and_scale(self.x, self.weight)

    @cached_property
    def context_moments(self) -> tuple[Tensor, Tensor]:
        """Those of each column of the context, which has to be there."""
        assert self.context is not None
        return location_and_scale(self.context, self.weight)

    def in_float32(self) -> Split:
        """The same rows, rounded to float32."""
        context = None if self.context is None else self.context.float()
        return Split(self.x.float(), context, self.weight)


def check_weight(weight: Tensor, rows: int) -> None:
    """Refuses weights, by a ValueError, that are not one for each row, from 0 and finite."""
    if weight.shape != (rows,):
        raise ValueError(f"weight: expected shape ({rows},), got {tuple(weight.shape)}")
    bad = ~((weight >= 0) & (weight < torch.inf))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"weight: expected finite numbers from 0, got {weight[row].item()} in row {row}"
        )


def effective(weight: Tensor) -> float:
    r"""The number of rows of equal weight that are worth as much as rows of these weights.

    .. math:: n_{eff} = \frac{(\sum_i w_i)^2}{\sum_i w_i^2}

    References:
        Survey Sampling (Kish, 1965)

    Example:
        >>> round(effective(torch.tensor([1.0, 1.0, 0.5])), 2)
        2.78
    """
    share = weight.double() / weight.max()  # whose squares are far from the least float
    return float(share.sum().square() / share.square().sum())


def location_and_scale(x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The weighted mean and standard deviation of each column, in float32 or x's own float64.

    A constant column gets scale 1: it is only centred, and nothing is divided by zero.
    """
    if weight is not None:
        x, weight = x[weight > 0], weight[weight > 0]
    # Column by column: a float64 copy of a large table would double its memory twice over.
    moments = [weighted_moments(column.double(), weight) for column in x.unbind(1)]
    variance, mean = (torch.stack(values) for values in zip(*moments, strict=True))
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    scale = variance.sqrt().to(dtype)
    # The computed variance of a constant need not be exactly zero; a tiny one may round to it.
    scale[(x.amax(0) == x.amin(0)) | (scale == 0)] = 1
    return mean.to(dtype), scale


def deal_rows(
    columns: Sequence[Array],
    numbers: Sequence[Array],
    sizes: Sequence[int],
    seed: int,
    dealing: Dealing,
) -> tuple[tuple[Tensor, ...], int | None]:
    """Deals rows as :func:`deal` does, with :func:`copies` as groups if `dealing` is "values".

    Also gives the number of distinct rows, None if there are no copies.
    """
    check_dealing(dealing)
    group = copies(columns, numbers) if dealing == "values" else None
    return deal(sizes, seed, group), None if group is None else len(np.unique(group))


def check_dealing(dealing: str) -> None:
    """Raises a ValueError if rows cannot be dealt in this way."""
    if dealing not in get_args(Dealing):
        raise ValueError(f"dealing: expected 'rows' or 'values', got {dealing!r}")


def deal(
    sizes: Sequence[int], seed: int, group: NDArray[np.int64] | None = None
) -> tuple[Tensor, ...]:
    """Deals rows at random into parts; those of a group go to the same part.

    The first part is that of training; the seed is that of a permutation of the rows. Without
    groups the parts have exactly these sizes. With them they are as near to these as whole groups
    allow, and only those of size 0 are empty. Groups larger than one of the later parts go
    to the first part, and the other rows are dealt as if these were not there.

    Example:
        >>> deal([3, 2], seed=0)
        (tensor([4, 0, 1]), tensor([3, 2]))
        >>> deal([3, 2], seed=0, group=np.array([0, 1, 0, 1, 1]))
        (tensor([4, 1, 3]), tensor([0, 2]))
    """
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed))
    if group is None:
        return tuple(order.split(list(sizes)))
    places = group[order.numpy()]
    _, first, found, counts = np.unique(
        places, return_index=True, return_inverse=True, return_counts=True
    )
    large = counts > min((size for size in sizes[1:] if size), default=len(places))
    rank = np.where(large, first - len(places), first)  # each group where its first row is
    order = order[torch.from_numpy(np.argsort(rank[found], kind="stable"))]
    ends = np.cumsum(counts[np.argsort(rank)])
    wanted = [size for size in sizes if size]
    if len(ends) < len(wanted):
        raise ValueError(
            f"expected at least {len(wanted)} distinct rows to deal into {len(wanted)} parts, "
            f"found {len(ends)} in {len(places)} rows"
        )
    cuts, done, last = [], max(int(large.sum()) - 1, 0), int(counts[large].sum())
    for i, size in enumerate(sizes):
        if size:
            # As near as can be, with a group for this part and one for each that is to come.
            wanted.pop()
            room = len(ends) - len(wanted)
            done = min(done, room - 1)
            some = ends[done:room]
            target = last + (len(places) - last) * size / sum(sizes[i:])
            best = int(np.abs(some - target).argmin())
            done, last = done + best + 1, int(some[best])
        cuts.append(last)
    return tuple(order.tensor_split(cuts[:-1]))


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


def columns_of(split: Split) -> list[Array]:
    """The columns of features and of the context, in float32, as flows see them."""
    parts = [split.x] if split.context is None else [split.x, split.context]
    return [column.float().numpy() for part in parts for column in part.unbind(1)]


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
