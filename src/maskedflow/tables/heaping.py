"""Finding the round and popular numbers that rows heap up at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammainc
from torch import Tensor

from maskedflow.columns.rows import Layout
from maskedflow.data.split import effective
from maskedflow.transforms import LazyComposedTransform, NormalScores

from .heaps import FARTHEST, NEVER, Heaps, first_steps

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Family = tuple[float, ...]

DECIMAL: Family = tuple(float(f"{d}e{e}") for e in range(-6, 13) for d in (1, 2, 2.5, 5))
"""Round numbers of decimals."""
_HOUR = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)
CLOCK: Family = (
    *map(float, (*_HOUR, 24, 36, 48)),
    *(60.0 * minutes for minutes in _HOUR[1:]),
    *(3600.0 * hours for hours in (2, 3, 4, 6, 8, 12, 24)),
)
"""Round numbers of months, and of minutes and seconds."""
_FAMILIES: tuple[Family, ...] = ((), DECIMAL, CLOCK)
_SEVERAL = 4
"""How many of the coarsest round numbers nine tenths of the rows span, at least."""
_LONGEST = 2**14
"""The most cells of a period."""
_DIGITS = 2
"""Of how many powers of ten, the finest ones, the remainders may heap up, such as 99 cents."""
_BAND = 200
"""The fewest rows of a band."""
_PRIOR = 20.0
"""How many rows of its own a band needs to count as much as those of all bands."""
_CHANCE = 1.5
"""The rows of a round number that may be chance."""
_ITERATIONS = 200
_PLACES = 32
"""The most places of a cell that its rows are spread over."""
_MOST = 2000
"""The most popular numbers, and the most that are taken for such beyond those of the rows."""
_OUTSTANDING = (0.01, math.inf)
"""How many numbers may stand out by chance: hardly any, or all do."""
_SHARES, _DISCOUNTS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.997), (0.0, 0.5, 0.75, 0.9)
"""The weights and the discounts of frequencies that are tried."""
_FEW = 0.15
"""The share of rows that may stand out if a smooth density is to be of the others."""
_BESIDE, _LEAST = 25, 0.3
"""The rows on either side of a number that tell how many are expected there, and which part of
that is, whatever a smooth density says: its tails may be too thin."""
_FAINT = 1e-6
"""The fewest rows that may be expected: a slope must not be infinite."""
_FEWEST = 50
"""Rows below which nothing is looked for."""
_FOLDS, _ENOUGH = 4, 20_000
"""The folds of rows that judge, and the most of these rows."""
_GAIN, _ERRORS = 4.0, 2.0
"""What a map has to gain on rows left out: nats, and standard errors."""


@dataclass(frozen=True)
class _Column:
    """A column's layout, and the map of its heaps."""

    layout: Layout
    origin: int
    left_out: Ints
    edges: Ints
    bases: Ints
    periods: Ints
    starts: Ints
    widths: Floats
    popular: Ints
    factors: Floats

    @property
    def step(self) -> float:
        return self.layout.steps[0]

    def numbers(self, values: Floats) -> Ints:
        """The numbers of values, in steps above 0."""
        cells = np.rint(values / self.step).astype(np.int64)
        before = self.left_out - np.arange(len(self.left_out))
        return cells + np.searchsorted(before, cells, side="right") + self.origin

    def with_popular(self, cells: Ints, factors: Floats) -> _Column:
        atoms = self.left_out + self.origin
        every = np.concatenate([cells, atoms])
        factors = np.concatenate([factors, np.zeros(len(atoms))])
        order = np.argsort(every)
        return replace(self, popular=every[order], factors=factors[order])

    @property
    def heaps(self) -> Heaps:
        return joined([0], [self])


def joined(index: Sequence[int], columns: Sequence[_Column]) -> Heaps:
    """The maps of several columns as one."""

    def padded(tables: Iterable[NDArray[np.generic]], fill: float, more: int = 0) -> Tensor:
        tables = list(tables)
        length = max(map(len, tables)) + more
        rows = [np.pad(table, (0, length - len(table)), constant_values=fill) for table in tables]
        return torch.from_numpy(np.stack(rows))

    def bound(name: str, none: float) -> Tensor:
        ends = [getattr(column.layout, name)[0] for column in columns]
        return torch.tensor([none if end is None else end for end in ends], dtype=torch.float64)

    before = np.cumsum([0, *(len(column.widths) for column in columns)])
    return Heaps(
        columns=torch.tensor(index),
        step=torch.tensor([column.step for column in columns], dtype=torch.float64),
        lows=bound("lows", -math.inf),
        highs=bound("highs", math.inf),
        origins=torch.tensor([column.origin for column in columns]),
        left_out=padded((column.left_out for column in columns), NEVER),
        edges=padded((column.edges for column in columns), NEVER),
        bases=padded((column.bases for column in columns), 0),
        periods=padded((column.periods for column in columns), 1),
        starts=padded((c.starts + k for c, k in zip(columns, before, strict=False)), 0),
        widths=torch.from_numpy(np.concatenate([column.widths for column in columns])),
        popular=padded((column.popular for column in columns), NEVER, 1),
        factors=padded((column.factors for column in columns), 1, 1),
    )


def fit_heaps(
    layout: Layout, values: Tensor, observed: Tensor, weight: Tensor | None = None
) -> Heaps | None:
    """Fits the map of the columns on a grid whose rows heap up at some numbers; None if none do.

    Args:
        layout: What the columns are.
        values: The values of the rows, on their grids, with shape (n, D).
        observed: Where there is one, alike.
        weight: How much each row counts, with shape (n,); all alike if None.
    """
    weight = values.new_ones(len(values)) if weight is None else weight
    found: dict[int, _Column] = {}
    for k, step in enumerate(layout.steps):
        here = observed[:, k] & (weight > 0)
        if not step or not here.any():
            continue
        share = weight[here].double()
        share = share * (effective(share) / share.sum())
        column = _find(_alone(layout, k), values[here, k].double().numpy(), share.numpy())
        if column is not None:
            found[k] = column
    return joined(list(found), list(found.values())) if found else None


def _alone(layout: Layout, k: int) -> _Column:
    """A column, as a map that leaves it as it is."""
    step = layout.steps[k]
    bounds = (layout.lows[k],), (layout.highs[k],)
    alone = Layout((), (None,), (), (step,), *bounds, edges=layout.edges[k : k + 1])
    none, zero, one = np.zeros(0, np.int64), np.zeros(1, np.int64), np.ones(1, np.int64)
    origin = round(layout.origins[k] / step) if layout.origins else 0
    left_out = np.array(layout.left_out[k] if layout.left_out else (), np.int64)
    same = _Column(alone, origin, left_out, none, zero, one, zero, np.ones(1), none, np.zeros(0))
    return same.with_popular(none, np.zeros(0))


def _find(column: _Column, values: Floats, weight: Floats) -> _Column | None:
    """The map under which rows left out are likeliest; None if that is no map at all."""
    if len(np.unique(values)) < 3 or weight.sum() < _FEWEST:
        return None
    if np.abs(values).max() / column.step + abs(column.origin) > FARTHEST / 2:
        return None
    order = np.random.default_rng(0).permutation(len(values))[:_ENOUGH]
    families, gains = _FAMILIES, list[Floats]()
    for fold in range(_FOLDS):
        out = np.arange(len(order)) % _FOLDS == fold
        rows, others = order[~out], order[out]
        known = values[rows], weight[rows]
        same = _log_prob(column, *known, values[others])
        found = [
            weight[others]
            * (_log_prob(_fit(column, *known, family), *known, values[others]) - same)
            for family in families
        ]
        best = int(np.argmax([gain.sum() for gain in found]))
        families = (families[best],)  # the first fold chooses
        gains.append(found[best])
        if sum(gain.sum() for gain in gains) <= 0:
            return None
    gain = np.concatenate(gains)
    if gain.sum() < _GAIN + _ERRORS * math.sqrt(np.square(gain).sum()):
        return None
    return _fit(column, values, weight, *families)


def _fit(column: _Column, values: Floats, weight: Floats, family: Family) -> _Column:
    """Fits the slopes of round numbers, then those of popular ones."""
    cells, which = np.unique(column.numbers(values), return_inverse=True)
    counts: Floats = np.bincount(which, weight).astype(np.float64)
    return _with_popular(_with_bands(column, cells, counts, family), values, weight, cells, counts)


def _with_bands(column: _Column, cells: Ints, counts: Floats, family: Family) -> _Column:
    """Fits the slopes of round numbers, and of last digits, in each band."""
    place = np.cumsum(counts) / counts.sum()
    low, high = cells[np.searchsorted(place, (0.05, 0.95)).clip(max=len(cells) - 1)]
    steps, longest = [1], 1
    for number in family:
        step = _in_steps(number, column.step)
        if 1 < step <= (high - low) / _SEVERAL and math.lcm(longest, step) <= _LONGEST:
            steps, longest = [*steps, step], math.lcm(longest, step)
    lattices = [(step, 0) for step in steps]
    decimals = [step for step in map(partial(_in_steps, step=column.step), family[::4]) if step]
    digits = [step for step in decimals if step > 1][:_DIGITS] if family == DECIMAL else []
    lattices += [(step, rest) for step in digits if step in steps for rest in range(1, step)]
    whole = _shares(cells, counts, lattices, np.zeros(len(lattices)))
    size = np.where(cells < 0, -cells - 1, cells)
    edges = _edges(size, counts, decimals if family == DECIMAL else [])
    widths, starts, periods = list[Floats](), [0], list[int]()
    for band, (begin, end) in enumerate(zip([0, *edges], [*edges, 0], strict=True)):
        period = math.gcd(begin, end, longest)
        here = [k for k, (step, _) in enumerate(lattices) if period % step == 0]
        prior = _PRIOR * whole[here] / whole[here].sum()
        inside = np.searchsorted(edges, size, side="right") == band
        shares = _shares(cells[inside], counts[inside], [lattices[k] for k in here], prior)
        found = [(*lattices[k], share) for k, share in zip(here, shares, strict=True) if share]
        width = np.zeros(math.lcm(*(step for step, _, _ in found)))
        for step, rest, share in found:
            width[rest::step] += share * step
        widths.append(width)
        starts.append(starts[-1] + len(width))
        periods.append(len(width))
    every = np.array([*(-edge for edge in reversed(edges)), *edges], np.int64)
    bands = [*range(len(edges), 0, -1), *range(len(edges) + 1)]
    return replace(
        column,
        edges=every,
        bases=np.array([*every[:1], *every] or [0], np.int64),
        periods=np.array([periods[band] for band in bands]),
        starts=np.array([starts[band] for band in bands]),
        widths=np.concatenate(widths),
    )


def _in_steps(number: float, step: float) -> int:
    """A number in steps; 0 if it is no multiple of one."""
    count = round(number / step)
    return count if abs(number / step - count) <= 1e-6 * count else 0


def _edges(size: Ints, counts: Floats, decimals: Sequence[int]) -> list[int]:
    """The powers of ten that divide the rows by their size, into bands of enough rows."""
    edges = [0]
    for edge in decimals:
        below = counts[(size < edge) & (size >= edges[-1])].sum()
        if min(below, counts[size >= edge].sum()) >= _BAND:
            edges.append(edge)
    return edges[1:]


def _shares(
    cells: Ints, counts: Floats, lattices: Sequence[tuple[int, int]], prior: Floats
) -> Floats:
    """The shares of rows that were rounded to each lattice, by EM, few of them above 0.

    A lattice of no more rows than chance would give has none. The finest always has some.
    """
    steps, rests = np.array(lattices).T
    rest, which = np.unique(cells % np.lcm.reduce(steps), return_inverse=True)
    rows = np.bincount(which, counts, len(rest))
    density = (rest[:, None] % steps == rests) * steps.astype(np.float64)
    chance = np.full(len(lattices), _CHANCE)
    chance[0] = -1.0
    share = np.full(len(lattices), 1 / len(lattices))
    for _ in range(_ITERATIONS):
        before = share
        share = share * (density.T @ (rows / (density @ share))) + prior
        share = np.maximum(share - chance, 0)
        share /= share.sum()
        if np.abs(share - before).max() < 1e-6:
            break
    return share


def _with_popular(
    column: _Column, values: Floats, weight: Floats, cells: Ints, counts: Floats
) -> _Column:
    """Fits the slopes of numbers that have many more rows than others as round as they are.

    The probability of a number becomes a mixture of its frequency, less a discount, and of what is
    expected. Whether all numbers have a frequency, or only those that stand out from others nearby,
    and the weight and the discount are those under which each row is likeliest given all others.
    """
    total = counts.sum()
    firsts = column.step * np.unique(np.rint(values / column.step))
    begin, end = (_mapped(column, firsts + k * column.step) for k in (0, 1))
    smooth = total * np.exp(_log_prob(column, values, weight, firsts))
    place = np.cumsum(counts) - counts / 2
    low, high = (
        np.searchsorted(place, place + side * (counts / 2 + _BESIDE)).clip(0, len(cells) - 1)
        for side in (-1, 1)
    )
    up_to = np.cumsum(counts)
    rows = up_to[high] - up_to[low] + counts[low] - counts
    length = end[high] - begin[low] - (end - begin)
    apart = length > 1e-9 * np.abs(end)
    beside = np.divide(rows, length, out=np.zeros_like(rows), where=apart) * (end - begin)
    expected = np.maximum(smooth, beside)
    # If few rows stand out, what is smooth is seen better without them.
    out = _chance(counts, expected) < _OUTSTANDING[0] / len(cells)
    usual = np.where(out, np.minimum(expected, counts), counts)
    if (1 - _FEW) * total < usual.sum() < total:
        smooth = usual.sum() * np.exp(_log_prob(column, firsts, usual, firsts))
    smooth = np.maximum(smooth, np.maximum(_LEAST * beside, _FAINT))

    def own(count: Floats, chance: float, discount: float) -> Floats:
        stands_out = _chance(count, expected) < chance / len(cells)
        return np.where(stands_out, np.maximum(count - discount, 0), 0)

    best, factors = 0.0, np.ones(len(cells))
    for chance, discount in product(_OUTSTANDING, _DISCOUNTS):
        rows, others = own(counts, chance, discount), own(counts - 1, chance, discount)
        for share in _SHARES:
            rest = 1 - share * rows.sum() / total
            gain = float(counts @ np.log(rest + share * others / smooth))
            if gain > best:
                best, factors = gain, 1 + share / rest * rows / smooth
    kept = np.sort(np.argsort(-counts * np.log(factors))[: min(_MOST, (factors > 1).sum())])
    return _continued(column.with_popular(cells[kept], factors[kept]), cells[0], cells[-1])


def _continued(column: _Column, first: int, last: int) -> _Column:
    """Stretches cells beyond those of the rows as these are on average, as far as they go again.

    Else a tail would go on for many more cells than it begins with.
    """
    span = last - first + 1
    stretch = float(span + column.heaps().base.extra.sum()) / (span - np.sum(column.factors == 0))
    if span > _MOST or stretch <= 1:
        return column
    low, high = column.layout.lows[0], column.layout.highs[0]
    least, most = first - span, last + span
    if low is not None:
        least = max(least, int(column.numbers(np.array([low]))[0]))
    if high is not None:
        most = min(most, int(column.numbers(np.array([high - column.step]))[0]))
    beyond = np.r_[least:first, last + 1 : most + 1]
    beyond = np.setdiff1d(beyond, column.popular)
    is_popular = column.factors > 0
    return column.with_popular(
        np.concatenate([column.popular[is_popular], beyond]),
        np.concatenate([column.factors[is_popular], np.full(len(beyond), stretch)]),
    )


def _chance(counts: Floats, expected: Floats) -> Floats:
    """The Poisson probability of so many rows or more."""
    found: Floats = gammainc(np.ceil(counts).clip(min=0), expected)
    return found


def _mapped(column: _Column, values: Floats) -> Floats:
    mapped: Floats = column.heaps()(torch.from_numpy(values)[:, None])[:, 0].numpy()
    return mapped


def _log_prob(column: _Column, values: Floats, weight: Floats, others: Floats) -> Floats:
    """The log-probability of numbers, whose scores on the real line are normal for some rows."""
    steps = first_steps(column.layout, column.heaps)
    distinct, which = np.unique(values, return_inverse=True)
    rows = np.bincount(which, weight)
    places = np.ceil(rows).clip(1, _PLACES).astype(np.int64)
    first = np.repeat(np.cumsum(places) - places, places)
    within = (np.arange(places.sum()) - first + 0.5) / np.repeat(places, places)
    spread = np.repeat(distinct, places) + within * column.step
    line = LazyComposedTransform(*steps)()(torch.from_numpy(spread)[:, None])
    margin = NormalScores.fit(line, weight=torch.from_numpy(np.repeat(rows / places, places)))
    f = LazyComposedTransform(*steps, margin)()
    known, which = np.unique(others, return_inverse=True)
    low, high = (f(torch.from_numpy(known + k * column.step)[:, None])[:, 0] for k in (0, 1))
    # In the lower tail, where differences are exact.
    low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)
    below, up_to = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    log_mass = up_to + (-torch.expm1((below - up_to).clamp(max=-1e-300))).log()
    return np.asarray(log_mass.numpy()[which])
