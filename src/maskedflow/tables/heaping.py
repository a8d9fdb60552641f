"""Finding the round and popular numbers that rows heap up at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import poisson
from torch import Tensor

from maskedflow.columns.rows import Layout
from maskedflow.transforms import LazyComposedTransform, NormalScores

from .heaps import NEVER, Heaps, first_steps
from .weighed import effective

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DECIMAL = tuple(float(f"{d}e{e}") for e in range(-6, 13) for d in (1, 2, 2.5, 5))
"""Round numbers of decimals."""
_HOUR = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)
CLOCK = (
    *map(float, (*_HOUR, 24, 36, 48)),
    *(60.0 * part for part in _HOUR[1:]),
    *(3600.0 * hours for hours in (2, 3, 4, 6, 8, 12, 24)),
)
"""Round numbers of months, and of minutes and seconds."""
_SEVERAL = 4
"""How many of the coarsest steps the middle nine tenths of the rows span, at least."""
_LONGEST = 2**14
"""The most cells of a period."""
_DIGITS = (10.0, 100.0)
"""What last digits, such as 99 cents, are the remainders of, in the finest round numbers."""
_BAND = 200
"""The fewest rows of a band."""
_PRIOR = 20.0
"""How many rows of its own a band needs to count as much as those of all bands."""
_LEAST = 1.5
"""The rows that speak for a round number by chance."""
_ITERATIONS = 200
_PLACES = 32
"""The most places of a cell that its rows are spread over."""
_POPULAR, _POPULAR_ROWS, _CHANCE, _MOST = 2, 5, 0.01, 500
"""How often popular numbers are looked for; their fewest rows; how many would be found where there
are none; and how many are kept."""
_BESIDE = 25
"""The rows on either side that tell how many are expected."""
_FEWEST = 50
"""Rows below which none are looked for."""
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
        return torch.tensor([none if end is None else end for end in ends]).double()

    before = np.cumsum([0, *(len(column.widths) for column in columns)])
    return Heaps(
        columns=torch.tensor(index),
        step=torch.tensor([column.step for column in columns]).double(),
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
    alone = Layout((), (None,), (), (step,), (layout.lows[k],), (layout.highs[k],))
    none, zero, one = np.zeros(0, np.int64), np.zeros(1, np.int64), np.ones(1, np.int64)
    origin = round(layout.origins[k] / step) if layout.origins else 0
    left_out = np.array(layout.left_out[k] if layout.left_out else (), np.int64)
    same = _Column(
        alone, origin, left_out, none, zero, one, zero, np.ones(1), none, np.zeros(0)
    )
    return same.with_popular(none, np.zeros(0))


def _find(column: _Column, values: Floats, weight: Floats) -> _Column | None:
    """The map under which rows left out are likeliest; None if that is no map at all."""
    if len(np.unique(values)) < 3 or weight.sum() < _FEWEST:
        return None
    order = np.random.default_rng(0).permutation(len(values))[:_ENOUGH]
    scores = {family: np.zeros(len(order)) for family in (None, (), DECIMAL, CLOCK)}
    for fold in range(_FOLDS):
        out = np.arange(len(order)) % _FOLDS == fold
        rows, others = order[~out], order[out]
        for family in scores:
            made = column if family is None else _fit(column, values[rows], weight[rows], family)
            scores[family][out] = _log_prob(made, values[rows], weight[rows], values[others])
    share, same = weight[order], scores.pop(None)
    gains = {family: share * (score - same) for family, score in scores.items()}
    best = max(gains, key=lambda family: gains[family].sum())
    gain = gains[best]
    if gain.sum() < _GAIN + _ERRORS * math.sqrt(np.square(gain).sum()):
        return None
    return _fit(column, values, weight, best)


def _fit(column: _Column, values: Floats, weight: Floats, family: tuple[float, ...]) -> _Column:
    """Fits the slopes of round numbers, then the popular ones."""
    cells, which = np.unique(column.numbers(values), return_inverse=True)
    counts = np.bincount(which, weight)
    column = _with_bands(column, cells, counts, family)
    for _ in range(_POPULAR):
        column = _with_popular(column, values, weight, cells, counts)
    return column


def _with_bands(
    column: _Column, cells: Ints, counts: Floats, family: tuple[float, ...]
) -> _Column:
    span = np.subtract(*_quantiles(cells, counts, (0.95, 0.05))) / _SEVERAL
    steps, period = [1], 1
    for number in family:
        step = round(number / column.step)
        exact = step > 1 and abs(number / column.step - step) < 1e-6
        if exact and step <= span and math.lcm(period, step) <= _LONGEST:
            steps, period = [*steps, step], math.lcm(period, step)
    digits = [round(d * _finest(family, column.step)) for d in _DIGITS] if family else []
    lattices = [(step, 0) for step in steps]
    lattices += [(d, r) for d in digits if d in steps for r in range(1, d)]
    edges = _edges(cells, counts, family, column.step)
    every = np.concatenate([-edges[::-1], edges])
    whole = _shares(cells, counts, lattices, np.zeros(len(lattices)))
    widths, starts, periods = list[Floats](), [0], list[int]()
    size = np.searchsorted(edges, np.where(cells < 0, -cells - 1, cells), side="right")
    for band, (low, high) in enumerate(zip([0, *edges], [*edges, 0], strict=True)):
        own = math.gcd(math.gcd(int(low), int(high)), period)
        here = [k for k, (step, _) in enumerate(lattices) if own % step == 0]
        prior = whole[here] / whole[here].sum() * _PRIOR
        inside = size == band
        some = [lattices[k] for k in here]
        share = _shares(cells[inside], counts[inside], some, prior)
        width = np.zeros(own)
        for (step, rest), part in zip(some, share, strict=True):
            width[rest::step] += part * step
        widths.append(width)
        starts.append(starts[-1] + own)
        periods.append(own)
    bands = [*range(len(edges), 0, -1), *range(len(edges) + 1)]
    return replace(
        column,
        edges=every,
        bases=np.concatenate([every[:1], every]) if len(every) else np.zeros(1, np.int64),
        periods=np.array([periods[band] for band in bands]),
        starts=np.array([starts[band] for band in bands]),
        widths=np.concatenate(widths),
    )


def _finest(family: tuple[float, ...], step: float) -> float:
    """The smallest power of ten that is no smaller than a step, in steps."""
    return 10.0 ** math.ceil(math.log10(step) - 1e-9) / step


def _edges(cells: Ints, counts: Floats, family: tuple[float, ...], step: float) -> Ints:
    """The powers of ten that divide the rows by their size, into bands of enough rows."""
    if family is not DECIMAL:
        return np.zeros(0, np.int64)
    size = np.where(cells < 0, -cells - 1, cells)
    kept: list[int] = []
    for number in family[::4]:
        edge = round(number / step)
        if edge < 1 or abs(number / step - edge) > 1e-6 * edge:
            continue
        below = counts[(size < edge) & (size >= (kept[-1] if kept else 0))].sum()
        if below >= _BAND and counts[size >= edge].sum() >= _BAND:
            kept.append(edge)
    return np.array(kept, np.int64)


def _shares(
    cells: Ints, counts: Floats, lattices: Sequence[tuple[int, int]], prior: Floats
) -> Floats:
    """The shares of rows that were rounded to each lattice, by EM, few of them above 0.

    A lattice of no more rows than chance would give has none. The finest always has some.
    """
    steps, rests = (np.array(part) for part in zip(*lattices, strict=True))
    period = np.lcm.reduce(steps)
    rest, which = np.unique(cells % period, return_inverse=True)
    rows = np.bincount(which, counts, len(rest))
    density = (rest[:, None] % steps == rests) * steps.astype(np.float64)
    share = np.full(len(lattices), 1 / len(lattices))
    least = np.full(len(lattices), _LEAST)
    least[0] = -1.0
    for _ in range(_ITERATIONS):
        mixed = density @ share
        found = share * (density.T @ (rows / mixed)) + prior
        now = np.maximum(found - least, 0)
        now /= now.sum()
        done = np.abs(now - share).max() < 1e-6
        share = now
        if done:
            break
    return share


def _with_popular(
    column: _Column, values: Floats, weight: Floats, cells: Ints, counts: Floats
) -> _Column:
    """Looks for numbers of many more rows than numbers nearby would let expect."""
    unpopular = column.with_popular(np.zeros(0, np.int64), np.zeros(0))
    firsts = np.sort(np.unique(np.rint(values / column.step)))
    ends = [_mapped(column, firsts + k) for k in (0, 1)]
    widths = _widths(unpopular, firsts)
    log_mass = _log_prob(column, values, weight, firsts * column.step)
    stretch = (ends[1] - ends[0]) / widths
    expected = counts.sum() * np.exp(log_mass) / stretch
    beside = np.cumsum(counts) - counts / 2
    low = np.searchsorted(beside, beside - counts / 2 - _BESIDE).clip(0, len(cells) - 1)
    high = np.searchsorted(beside, beside + counts / 2 + _BESIDE).clip(0, len(cells) - 1)
    total = np.concatenate([[0], np.cumsum(counts)])
    length = (ends[1][high] - ends[0][low]) - (ends[1] - ends[0])
    near = total[high + 1] - total[low] - counts
    local = near / np.maximum(length, 1e-12 * np.abs(ends[1])) * widths
    expected = np.maximum(expected, np.where(length > 0, local, 0))
    chance = poisson.sf(np.floor(counts) - 1, expected)
    popular = (counts >= _POPULAR_ROWS) & (chance < _CHANCE / len(cells))
    factors = (counts + 1) / (expected + 1)
    gain = np.where(popular, counts * np.log(factors), 0)
    kept = np.sort(np.argsort(-gain)[: min(_MOST, popular.sum())])
    return column.with_popular(cells[kept], factors[kept])


def _mapped(column: _Column, cells: Floats) -> Floats:
    """Where cells, counted as values are, begin."""
    x = torch.from_numpy(cells * column.step)[:, None]
    return column.heaps()(x)[:, 0].numpy() / column.step


def _widths(column: _Column, cells: Floats) -> Floats:
    x = torch.from_numpy((cells + 0.5) * column.step)[:, None]
    return column.heaps().call_and_ladj(x)[1].exp().numpy()


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
    low, high = (
        f(torch.from_numpy(known + k * column.step)[:, None])[:, 0].numpy() for k in (0, 1)
    )
    flip = low > 0
    low, high = np.where(flip, -high, low), np.where(flip, -low, high)
    a, b = (torch.special.log_ndtr(torch.from_numpy(t)).numpy() for t in (low, high))
    log_mass = b + np.log(-np.expm1(np.minimum(a - b, -1e-300)))
    return np.asarray(log_mass[which])


def _quantiles(cells: Ints, counts: Floats, shares: Sequence[float]) -> Floats:
    place = np.cumsum(counts) / counts.sum()
    return cells[np.searchsorted(place, shares).clip(max=len(cells) - 1)].astype(np.float64)
