"""Adversarial random forests: leaves as components of a density of numbers given codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor

from maskedflow.kernels.cache import compiled

from .products import NEVER, MixtureOfProducts, log_mass

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
_Number = TypeVar("_Number", int, float)

_TREES = 30
_ROUNDS = 3
"""Most forests in turn, each against rows drawn from the leaves of the last."""
_SMALLEST = 3
"""Least rows, drawn ones among them, in a leaf of a forest as it grows."""
_LEAST = (5, 10, 20, 40, 80, 160)
"""Rows that a node may need to be split."""
_CELLS = 200_000
"""Most numbers and codes that a forest is fitted to."""
_NUMBERS = 2_000_000
"""Most numbers that the components have in all."""
_HELD_OUT, _MOST_HELD_OUT = 5, 2_000
"""One of so many rows is held out to judge leaves, and most of them."""
_PRIORS = (0.1, 0.03, 0.01)
"""How many rows what a leaf would be if columns were independent may count for."""
_NARROWEST = 0.05
"""The least standard deviation, in units of the whole, of further numbers of the context."""
_WIDEST = 2.0
"""The most standard deviation of a normal in units of that of what is left of it within bounds."""
_NEWTON, _REACH = 12, 8.0


Leaves = tuple[int, float]
"""The rows that a leaf needs, and those of its prior."""


def fit_forest(
    z: Tensor,
    c: Tensor | None,
    observed: Tensor,
    weight: Tensor,
    present: Sequence[int | None],
    levels: Sequence[int] = (),
    seed: int = 0,
    settled: Leaves | None = None,
) -> tuple[MixtureOfProducts, Leaves]:
    r"""Fits an adversarial random forest to numbers that have standard scores, given codes.

    A forest learns to tell rows from such whose columns are independent, then, in turn, from rows
    whose columns are independent within each of its own leaves, as long as it can. Within a leaf of
    the last forest numbers are normals, truncated to its bounds, that have the moments of its rows
    and of one more of independent columns; and codes have the frequencies of its rows. How many
    rows a leaf needs is what makes rows that were held out likeliest, given their codes.

    Args:
        z: The rows, shape (n, D), absent numbers are ignored.
        c: The context: one-hot codes, then further numbers; shape (n, C).
        observed: Whether each number is observed, shape (n, D).
        weight: How much each row counts, shape (n,).
        present: As in :class:`MixtureOfProducts`.
        levels: How many levels each code has.
        seed: Of the forest, of what is drawn, and of the choice of rows.
        settled: The rows that a leaf needs, and those of its prior; None if they are to be found.

    Returns:
        The density, and what was settled.

    References:
        | Adversarial Random Forests for Density Estimation and Generative Modeling
        | (Watson et al., 2023), https://proceedings.mlr.press/v206/watson23a.html
    """
    total = sum(levels)
    generator = np.random.default_rng(seed)
    width = len(present) + (0 if c is None else c.shape[1] - total + len(levels))
    order = torch.from_numpy(generator.permutation(len(z))[: max(_CELLS // width, 100)].copy())
    z, observed, weight = z[order].double(), observed[order], weight[order].double()
    c = z.new_zeros(len(z), 0) if c is None else c[order].double()
    rows = _Rows.of(z, c, observed, weight, present, levels)
    held_out = min(len(z) // _HELD_OUT, _MOST_HELD_OUT)
    least, prior = settled or (_LEAST[0], _PRIORS[0])
    with threadpool_limits(1):
        if held_out and settled is None:
            some, given = rows[held_out:], c[:held_out] if c.shape[1] else None
            grown = _grow(some, generator)

            def score(least: int, prior: float) -> float:
                made = _mixture(some, grown, least, prior, present, levels)
                log_prob = made(given).log_prob(z[:held_out])
                return float((weight[:held_out] * log_prob).sum())

            least = _best(_LEAST, lambda least: score(least, prior))
            prior = _best(_PRIORS, lambda prior: score(least, prior))
        made = _mixture(rows, _grow(rows, generator), least, prior, present, levels)
    return made, (least, prior)


def _best(values: Sequence[_Number], score: Callable[[_Number], float]) -> _Number:
    """The last one before scores fall."""
    found, best = values[0], -math.inf
    for value in values:
        now = score(value)
        if now <= best:
            break
        found, best = value, now
    return found


@dataclass(frozen=True)
class _Rows:
    """Rows as a forest takes them."""

    x: _Floats
    """Numbers, 0 if absent, further numbers of the context, and codes."""
    seen: NDArray[np.bool_]
    """Whether each of them is there."""
    places: _Ints
    """The place of each code's level among the levels of all codes."""
    weight: _Floats
    source: _Ints
    """For each column that from which it is drawn together: a number's is its state."""

    @classmethod
    def of(
        cls,
        z: Tensor,
        c: Tensor,
        observed: Tensor,
        weight: Tensor,
        present: Sequence[int | None],
        levels: Sequence[int],
    ) -> _Rows:
        starts = list(accumulate(levels, initial=0))
        numbers = c[:, starts[-1] :]
        parts = c[:, : starts[-1]].split(list(levels), dim=1)
        codes = [part.argmax(dim=1) for part in parts]
        codes_of = torch.stack(codes, dim=1) if codes else torch.zeros(len(z), 0, dtype=torch.long)
        x = torch.cat([torch.where(observed, z, 0), numbers, codes_of], dim=1)
        seen = torch.ones_like(x, dtype=torch.bool)
        seen[:, : len(present)] = observed
        source = np.arange(x.shape[1])
        first = len(present) + numbers.shape[1]
        for d, column in enumerate(present):
            if column is not None:
                source[d] = first + np.searchsorted(starts, column, side="right") - 1
        places = codes_of + torch.tensor(starts[:-1], dtype=torch.long)
        share = weight / weight.mean()
        return cls(x.numpy(), seen.numpy(), places.numpy(), share.numpy(), source)

    def __getitem__(self, rows: slice) -> _Rows:
        x, seen, places, weight = (
            self.x[rows],
            self.seen[rows],
            self.places[rows],
            self.weight[rows],
        )
        return _Rows(x, seen, places, weight, self.source)


def _grow(rows: _Rows, generator: np.random.Generator) -> RandomForestClassifier:
    """Grows forests in turn; the last one that could tell drawn rows."""
    leaves = np.zeros((len(rows.x), 1), dtype=np.int64)
    grown, before = None, 1.0
    label = np.repeat([1, 0], len(rows.x))
    for _ in range(_ROUNDS):
        drawn = _draw(rows, leaves, generator)
        forest = RandomForestClassifier(
            _TREES,
            min_samples_leaf=_SMALLEST,
            random_state=int(generator.integers(2**31)),
        )
        weight = np.concatenate([rows.weight, np.ones(len(drawn))])
        both = np.concatenate([rows.x, drawn])
        forest.fit(both, label, weight)
        accuracy = _accuracy(forest, both, label)
        if grown is not None and accuracy >= before:
            break
        grown, before = forest, accuracy
        if accuracy <= 0.5:
            break
        leaves = forest.apply(rows.x)
    return grown


def _accuracy(forest: RandomForestClassifier, x: _Floats, label: _Ints) -> float:
    """The share of rows that the trees which have not seen them tell right.

    The forest's own `oob_score` warns of rows that all trees have seen, as heavy ones are.
    """
    votes = np.zeros((len(x), 2))
    for tree, seen in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.ones(len(x), dtype=bool)
        unseen[seen] = False
        if unseen.any():
            votes[unseen] += tree.predict_proba(x[unseen])
    return float((votes.argmax(axis=1) == label).mean())


def _draw(rows: _Rows, leaves: _Ints, generator: np.random.Generator) -> _Floats:
    """Draws rows, of independent columns within each leaf of each tree."""
    n, trees = leaves.shape
    drawn = np.empty_like(rows.x)
    tree = generator.integers(trees, size=n)
    chosen = generator.choice(np.arange(n), size=n, p=rows.weight / rows.weight.sum())
    for t in range(trees):
        which = np.flatnonzero(tree == t)
        order = np.argsort(leaves[:, t], kind="stable")
        leaf = leaves[order, t]
        up_to = np.concatenate([[0.0], rows.weight[order].cumsum()])
        mine = leaves[chosen[which], t]
        low = up_to[np.searchsorted(leaf, mine, side="left")]
        high = up_to[np.searchsorted(leaf, mine, side="right")]
        u = generator.random((rows.x.shape[1], len(which)))[rows.source]
        place = np.searchsorted(up_to, low + u * (high - low), side="right") - 1
        from_rows = order[np.minimum(place, n - 1)]
        drawn[which] = np.take_along_axis(rows.x, from_rows.T, axis=0)
    return drawn


def _mixture(
    rows: _Rows,
    forest: RandomForestClassifier,
    least: int,
    prior: float,
    present: Sequence[int | None],
    levels: Sequence[int],
) -> MixtureOfProducts:
    """Makes the leaves of a forest, once each has some rows, components."""
    count = rows.x.shape[1] - rows.places.shape[1]
    reached = forest.apply(rows.x)
    parts = []
    number = 1 + 4 * count + sum(levels)
    left = _NUMBERS
    for t, estimator in enumerate(forest.estimators_):
        parts.append(
            _leaves(rows, estimator.tree_, reached[:, t], least, prior, len(present), levels)
        )
        left -= number * len(parts[-1][0])
        if left < 0:
            break
    log_weight, log_share, loc, scale, low, high = map(np.concatenate, zip(*parts, strict=True))
    mixture = MixtureOfProducts(len(loc), present, levels, count - len(present), truncated=True)
    found = {
        "log_weight": log_weight,
        "log_share": log_share.clip(NEVER),
        "loc": loc,
        "scale": scale,
    }
    for name, value in (found | {"low": low, "high": high}).items():
        getattr(mixture, name).copy_(torch.from_numpy(value))
    return mixture


def _leaves(
    rows: _Rows,
    tree: Any,
    reached: _Ints,
    least: int,
    prior: float,
    features: int,
    levels: Sequence[int],
) -> tuple[_Floats, ...]:
    """The components of a tree: logarithms of weights and shares, means, deviations, bounds."""
    children = np.stack([tree.children_left, tree.children_right], axis=1).astype(np.int64)
    counts = np.bincount(reached, minlength=len(children))
    top, bounds = _collapse(
        children, tree.feature.astype(np.int64), tree.threshold, counts, least, rows.x.shape[1]
    )
    nodes = np.flatnonzero(top == np.arange(len(top)))
    leaf = np.searchsorted(nodes, top[reached])
    bounds = bounds[nodes]
    size, count = len(nodes), rows.x.shape[1] - len(levels)
    mass = np.bincount(leaf, rows.weight, size)
    numbers = torch.from_numpy(bounds[:, :features])
    inside = log_mass(*numbers.unbind(dim=-1)).sum(dim=1).exp().numpy()
    share = []
    starts = list(accumulate(levels, initial=0))
    for j, (start, level) in enumerate(zip(starts, levels, strict=False)):
        place = rows.places[:, j] - start
        margin = (np.bincount(place, rows.weight, level) + 1 / level) / (len(place) + 1)
        single = np.bincount(leaf * level + place, rows.weight, size * level).reshape(-1, level)
        low, high = bounds[:, count + j, :, None].swapaxes(0, 1)
        left = np.where((low < np.arange(level)) & (np.arange(level) <= high), margin, 0.0)
        inside *= left.sum(axis=1)
        left /= left.sum(axis=1, keepdims=True)
        share.append((single + prior * left) / (mass[:, None] + prior))
    log_weight = np.log(mass + prior * inside)
    bounds = bounds[:, :count]
    bounds[:, features:] = -np.inf, np.inf
    loc, scale = np.empty((size, count)), np.empty((size, count))
    for d in range(count):
        weight = rows.weight * rows.seen[:, d]
        x = rows.x[:, d]
        mean, spread = 0.0, 1.0
        if d >= features:
            mean = np.average(x, weights=weight)
            spread = math.sqrt(np.average((x - mean) ** 2, weights=weight)) or 1.0
        x = (x - mean) / spread
        sums = np.stack([np.bincount(leaf, weight * x**k, size) for k in range(3)], axis=1)
        at, wide = np.empty(size), np.empty(size)
        _normals(np.ascontiguousarray(bounds[:, d]), sums, prior, at, wide)
        if d >= features:
            wide = np.maximum(wide, _NARROWEST)
        loc[:, d], scale[:, d] = mean + spread * at, spread * wide
    with np.errstate(divide="ignore"):
        log_share = np.log(np.concatenate(share, axis=1)) if share else np.zeros((size, 0))
    return log_weight, log_share, loc, scale, bounds[..., 0].copy(), bounds[..., 1].copy()


@compiled
def _collapse(
    children: Any, feature: Any, threshold: Any, counts: Any, least: int, columns: int
) -> Any:
    """For each node the leaf that it is in, once each leaf has enough rows; and all bounds.

    A node comes before its children.
    """
    n = len(children)
    counts = counts.copy()
    for i in range(n - 1, -1, -1):
        if children[i, 0] >= 0:
            counts[i] = counts[children[i, 0]] + counts[children[i, 1]]
    top = np.full(n, -1)
    bounds = np.empty((n, columns, 2))
    bounds[0, :, 0], bounds[0, :, 1] = -np.inf, np.inf
    for i in range(n):
        left, right = children[i]
        if top[i] < 0 and (left < 0 or counts[i] < least):
            top[i] = i
        if left >= 0:
            top[left] = top[right] = top[i]
            bounds[left], bounds[right] = bounds[i], bounds[i]
            bounds[left, feature[i], 1] = bounds[right, feature[i], 0] = threshold[i]
    return top, bounds


@compiled
def _normals(bounds: Any, sums: Any, prior: float, loc: Any, scale: Any) -> None:
    """Finds truncated normals that have the moments of rows, and of a truncated N(0, 1) besides.

    Sums are those of powers 0, 1 and 2, with shape (K, 3).
    """
    for k in range(len(bounds)):
        low, high = bounds[k]
        alone, variance = _moments(low, high)
        n, first, second = sums[k]
        size = n + prior
        mean = (first + prior * alone) / size
        around = second - 2 * mean * first + n * mean * mean
        around = max(around, 0.0) + prior * (variance + (alone - mean) * (alone - mean))
        spread = math.sqrt(around / size)
        at, wide = 0.0, 1.0
        if low > -np.inf or high < np.inf:
            at, wide = _match((low - mean) / spread, (high - mean) / spread)
        loc[k], scale[k] = mean + spread * at, spread * wide


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


@compiled
def _moments(low: float, high: float) -> Any:
    """The mean and variance of N(0, 1) within bounds."""
    if low == -np.inf and high == np.inf:
        return 0.0, 1.0
    low, high = max(low, min(high, 0.0) - _REACH), min(high, max(low, 0.0) + _REACH)
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    mode = min(max(0.0, low), high)
    mass = first = second = 0.0
    for node in range(len(_NODES)):
        step = half * _NODES[node]
        x = middle + step
        p = _WEIGHTS[node] * math.exp(-0.5 * (x - mode) * (x + mode))
        mass += p
        first += p * step
        second += p * step * step
    first, second = first / mass, second / mass
    return middle + first, second - first * first


@compiled
def _match(low: float, high: float) -> Any:
    """The normal that has mean 0 and variance 1 within bounds: its own mean and deviation.

    Newton's method for the natural parameters, whose log-likelihood is concave.
    """
    low, high = max(low, -_REACH), min(high, _REACH)
    limit = -0.5 / (_WIDEST * _WIDEST)
    a, b = 0.0, -0.5
    for _ in range(_NEWTON):
        mode = min(max(-0.5 * a / b, low), high)
        mass = first = second = third = fourth = 0.0
        for node in range(len(_NODES)):
            x = 0.5 * (low + high) + 0.5 * (high - low) * _NODES[node]
            p = _WEIGHTS[node] * math.exp((a + b * (x + mode)) * (x - mode))
            mass += p
            first += p * x
            second += p * x * x
            third += p * x * x * x
            fourth += p * x * x * x * x
        first, second, third, fourth = first / mass, second / mass, third / mass, fourth / mass
        v, w, cov = second - first * first, fourth - second * second, third - first * second
        det = v * w - cov * cov
        step_a, step_b = -first / v, 0.0
        if det > 1e-9 * v * w:
            step_a = (-first * w - (1 - second) * cov) / det
            step_b = ((1 - second) * v + first * cov) / det
        if b + step_b >= limit:
            # What is left to gain along the edge of what is allowed.
            step_b = limit - b
            step_a = (-first - cov * step_b) / v
        size = max(abs(step_a), abs(step_b))
        part = min(1.0, 1.0 / size) if size > 0 else 1.0
        a, b = a + part * step_a, b + part * step_b
        if size < 1e-6:
            break
    return -0.5 * a / b, math.sqrt(-0.5 / b)
