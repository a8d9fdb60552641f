"""Boosted trees that cut the standard normal distribution into cells, row by row.

The density of a number z is that of N(0, 1), except that the cells between edges have other
probabilities. These come from a chain of halvings: a row is in the cells from `low` to below
`high`, all of them at first, and a sum of trees says how likely it is in the upper half of these.
The trees of a halving know `low`, the last of the features.

A tree's nodes lie together. Each has the number of a feature, or -1 for a leaf; where its branches
are, counted from the root (left, right, and where a missing feature leads to); and a number: the
threshold of a feature, what a leaf adds, or the row of `levels`, the bits of those of a categorical
feature that go left.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .cache import compiled

_LOG_SCALE = 0.5 * math.log(2 * math.pi)


@compiled
def between(low: float, high: float) -> float:
    """The probability that N(0, 1) gives to an interval, to all digits in the upper tail, too."""
    if low > 0:
        low, high = -high, -low
    root = math.sqrt(0.5)
    return 0.5 * (math.erfc(-high * root) - math.erfc(-low * root))


@compiled
def add_trees(
    features: Any,
    rows: Any,
    lows: Any,
    total: Any,
    roots: Any,
    nodes: Any,
    branches: Any,
    numbers: Any,
    levels: Any,
    categorical: Any,
) -> None:
    """Adds what the trees of some roots say of rows of features, in the halvings from `lows` on."""
    last = features.shape[1] - 1
    for root in roots:
        for k in range(len(rows)):
            row, node = rows[k], root
            while nodes[node] >= 0:
                feature = nodes[node]
                value = float(lows[k]) if feature == last else features[row, feature]
                if math.isnan(value):
                    side = 2
                elif categorical[feature]:
                    level = int(value)
                    word = levels[int(numbers[node]), level >> 6]
                    side = 1 - ((word >> (level & 63)) & 1)
                else:
                    side = 0 if value <= numbers[node] else 1
                node = root + branches[node, side]
            total[k] += numbers[node]


@compiled
def _upper(total: float, share: float, prior: float) -> float:
    """The probability of the upper half."""
    return share / (1 + math.exp(-total)) + (1 - share) * prior


@compiled
def locate(
    z: Any,
    observed: Any,
    features: Any,
    edges: Any,
    baseline: Any,
    share: Any,
    starts: Any,
    roots: Any,
    nodes: Any,
    branches: Any,
    numbers: Any,
    levels: Any,
    categorical: Any,
) -> tuple[Any, Any, Any]:
    """The cells of z, (places, n), with their probabilities and those of all lower cells.

    All places of a row have the same features, (n, F).
    """
    places, n = z.shape
    cells = np.empty((places, n), np.int64)
    lows, highs = np.zeros((places, n), np.int64), np.zeros((places, n), np.int64)
    below, width = np.zeros((places, n)), np.ones((places, n))
    chosen, asked, question = (
        np.empty(places * n, np.int64),
        np.empty(places * n, np.int64),
        np.empty((places, n), np.int64),
    )
    for place in range(places):
        for row in range(n):
            cells[place, row] = np.searchsorted(edges[1:-1], z[place, row], side="right")
            highs[place, row] = len(edges) - 1 if observed[row] else 1
    for level in range(len(baseline)):
        count = 0
        for row in range(n):
            for place in range(places):
                low, high = lows[place, row], highs[place, row]
                question[place, row] = -1
                if high - low < 2:
                    continue
                for other in range(place):
                    if lows[other, row] == low and highs[other, row] == high:
                        question[place, row] = question[other, row]
                        break
                if question[place, row] < 0:
                    question[place, row] = count
                    chosen[count], asked[count] = row, low
                    count += 1
        total = np.full(count, baseline[level])
        add_trees(
            features,
            chosen[:count],
            asked[:count],
            total,
            roots[starts[level] : starts[level + 1]],
            nodes,
            branches,
            numbers,
            levels,
            categorical,
        )
        for place in range(places):
            for row in range(n):
                low, high = lows[place, row], highs[place, row]
                if high - low < 2:
                    continue
                middle = (low + high) // 2
                prior = between(edges[middle], edges[high]) / between(edges[low], edges[high])
                upper = _upper(total[question[place, row]], share[level], prior)
                if cells[place, row] >= middle:
                    below[place, row] += width[place, row] * (1 - upper)
                    width[place, row] *= upper
                    lows[place, row] = middle
                else:
                    width[place, row] *= 1 - upper
                    highs[place, row] = middle
    return cells, width, below


@compiled
def log_densities(z: Any, cells: Any, width: Any, edges: Any) -> Any:
    """The log-densities of numbers, given the probabilities of their cells."""
    found = np.empty(z.shape)
    for place in range(z.shape[0]):
        for row in range(z.shape[1]):
            cell = cells[place, row]
            mass = between(edges[cell], edges[cell + 1])
            ratio = math.log(width[place, row] / mass)
            found[place, row] = ratio - 0.5 * z[place, row] ** 2 - _LOG_SCALE
    return found


@compiled
def distribution(z: Any, cells: Any, width: Any, below: Any, edges: Any) -> Any:
    """The probabilities of a lower number."""
    found = np.empty(len(z))
    for row in range(len(z)):
        low, high = edges[cells[row]], edges[cells[row] + 1]
        share = between(low, z[row]) / between(low, high)
        found[row] = min(max(below[row] + width[row] * share, 0.0), 1.0)
    return found


@compiled
def draw(
    u: Any,
    features: Any,
    edges: Any,
    baseline: Any,
    share: Any,
    starts: Any,
    roots: Any,
    nodes: Any,
    branches: Any,
    numbers: Any,
    levels: Any,
    categorical: Any,
) -> tuple[Any, Any]:
    """The cells below which there is the probability u, (n,), and how far on it is in these."""
    n = len(u)
    lows, highs, rest = np.zeros(n, np.int64), np.full(n, len(edges) - 1), u.copy()
    for level in range(len(baseline)):
        chosen = np.nonzero(highs - lows > 1)[0]
        total = np.full(len(chosen), baseline[level])
        add_trees(
            features,
            chosen,
            lows[chosen],
            total,
            roots[starts[level] : starts[level + 1]],
            nodes,
            branches,
            numbers,
            levels,
            categorical,
        )
        for k in range(len(chosen)):
            row = chosen[k]
            low, high = lows[row], highs[row]
            middle = (low + high) // 2
            prior = between(edges[middle], edges[high]) / between(edges[low], edges[high])
            lower = 1 - _upper(total[k], share[level], prior)
            if rest[row] < lower:
                rest[row] /= lower
                highs[row] = middle
            else:
                rest[row] = (rest[row] - lower) / (1 - lower)
                lows[row] = middle
    return lows, rest
