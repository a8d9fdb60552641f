"""Mixtures of Gaussians, row by row: log-densities, and the moments of each component's share.

A component k of x given c is N(x | m_k + B_k c, L_k L_k^T) with the log-weight a_k + g_k c, whose
inverse factors W_k = L_k^-1 come ready made. Rows are computed in blocks of a fixed number, a row
in each lane of a vector: no row's numbers depend on those beside it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .cache import compiled

#: Rows that are computed together: a whole number of vectors, so that all lanes do the same.
LANES = 64
#: Log-shares in the whole below which a component counts for nothing in a sum, and in the moments.
_LEAST_TERM, _LEAST_SHARE = -45.0, -18.0


@compiled
def _terms(
    x: Any, c: Any, low: int, logits: Any, gates: Any, loc: Any, inverse: Any, slopes: Any
) -> tuple[Any, Any]:
    """The components' log-weights, and with their log-densities, of a block, (K, LANES)."""
    features, context, given = x.shape[1], slopes.shape[2], gates.shape[0]
    components, count = len(loc), min(LANES, len(x) - low)
    xs, cs = np.zeros((features, LANES)), np.zeros((context, LANES))
    for lane in range(count):
        for i in range(features):
            xs[i, lane] = x[low + lane, i]
        for i in range(context):
            cs[i, lane] = c[low + lane, i]
    weights, terms = np.zeros((LANES, components)), np.empty((components, LANES))
    for lane in range(count):
        for k in range(components):
            weights[lane, k] = logits[k]
        for i in range(given):
            one = c[low + lane, i]
            if one != 0:
                for k in range(components):
                    weights[lane, k] += one * gates[i, k]
    centred = np.empty((features, LANES))
    v, square = np.empty(LANES), np.empty(LANES)
    for k in range(components):
        constant = -0.5 * features * math.log(2 * math.pi)
        for i in range(features):
            constant += math.log(inverse[k, i, i])
            for lane in range(LANES):
                centred[i, lane] = xs[i, lane] - loc[k, i]
            for j in range(context):
                slope = slopes[k, i, j]
                for lane in range(LANES):
                    centred[i, lane] -= slope * cs[j, lane]
        square[:] = 0
        for i in range(features):
            v[:] = 0
            for j in range(i + 1):
                entry = inverse[k, i, j]
                for lane in range(LANES):
                    v[lane] += entry * centred[j, lane]
            for lane in range(LANES):
                square[lane] += v[lane] * v[lane]
        for lane in range(LANES):
            terms[k, lane] = weights[lane, k] + constant - 0.5 * square[lane]
    return weights.T, terms


@compiled
def _log_sum(terms: Any, lane: int) -> Any:
    """The logarithm of the sum of one lane's exponentials."""
    largest = terms[0, lane]
    for k in range(1, len(terms)):
        largest = max(largest, terms[k, lane])
    if not math.isfinite(largest):
        return largest
    total = 0.0
    for k in range(len(terms)):
        term = terms[k, lane] - largest
        if term > _LEAST_TERM:
            total += math.exp(term)
    return largest + math.log(total)


@compiled
def invert(factors: Any) -> Any:
    """The inverses of lower triangular matrices, (K, D, D)."""
    components, features = factors.shape[:2]
    found = np.zeros(factors.shape)
    for k in range(components):
        for i in range(features):
            found[k, i, i] = 1 / factors[k, i, i]
            for j in range(i):
                total = 0.0
                for m in range(j, i):
                    total += factors[k, i, m] * found[k, m, j]
                found[k, i, j] = -total * found[k, i, i]
    return found


@compiled
def marginal_factors(factors: Any, here: Any) -> Any:
    """The Cholesky factors of the marginals of some features, in order, from (K, D, D).

    By rotations, since the covariances themselves would lose half of the digits.
    """
    components, size = len(factors), len(here)
    found = np.zeros((components, size, size))
    for k in range(components):
        rows = factors[k][here].copy()
        for i in range(size):
            for j in range(i + 1, here[i] + 1):
                length = math.hypot(rows[i, i], rows[i, j])
                if length == 0:
                    continue
                cosine, sine = rows[i, i] / length, rows[i, j] / length
                for m in range(i, size):
                    first, second = rows[m, i], rows[m, j]
                    rows[m, i] = cosine * first + sine * second
                    rows[m, j] = cosine * second - sine * first
        found[k] = rows[:, :size]
    return found


@compiled
def log_densities(
    x: Any, c: Any, logits: Any, gates: Any, loc: Any, inverse: Any, slopes: Any
) -> tuple[Any, Any]:
    """Of rows x, (n, D), given c, (n, C): the log-densities, and the components', (n, K).

    The latter are with their log-weights, so that their exponentials sum up to the former's.
    """
    n, components = len(x), len(loc)
    log_probs, each = np.empty(n), np.empty((n, components))
    for low in range(0, n, LANES):
        weights, terms = _terms(x, c, low, logits, gates, loc, inverse, slopes)
        for lane in range(min(LANES, n - low)):
            whole = _log_sum(weights, lane)
            log_probs[low + lane] = _log_sum(terms, lane) - whole
            for k in range(components):
                each[low + lane, k] = terms[k, lane] - whole
    return log_probs, each


@compiled
def add_moments(
    x: Any,
    c: Any,
    mass: Any,
    logits: Any,
    gates: Any,
    loc: Any,
    inverse: Any,
    slopes: Any,
    middle: Any,
    moments: Any,
    squares: Any,
    counts: Any,
) -> tuple[float, int]:
    """Adds up the components' shares of rows, each with its mass.

    With the residual e = x - m_k - B_k c they are the second moments of (1, c - middle, e), (K, M,
    M), lower halves, the squares of the shares, (K,), and the products with c, (C, K).

    Returns:
        The rows' log-density, and how many pairs of a row and a component counted.
    """
    n, features = x.shape
    components, context, given = len(loc), slopes.shape[2], gates.shape[0]
    whole, pairs = 0.0, 0
    y = np.empty(1 + context + features)
    y[0] = 1
    for low in range(0, n, LANES):
        _, terms = _terms(x, c, low, logits, gates, loc, inverse, slopes)
        for lane in range(min(LANES, n - low)):
            row = low + lane
            total = _log_sum(terms, lane)
            whole += mass[row] * total
            for i in range(context):
                y[1 + i] = c[row, i] - middle[i]
            for k in range(components):
                if terms[k, lane] - total < _LEAST_SHARE:
                    continue
                pairs += 1
                share = mass[row] * math.exp(terms[k, lane] - total)
                squares[k] += share * share
                for i in range(given):
                    if c[row, i] != 0:
                        counts[i, k] += share * c[row, i]
                for i in range(features):
                    residual = x[row, i] - loc[k, i]
                    for j in range(context):
                        residual -= slopes[k, i, j] * c[row, j]
                    y[1 + context + i] = residual
                for i in range(len(y)):
                    part = share * y[i]
                    for j in range(i + 1):
                        moments[k, i, j] += part * y[j]
    return whole, pairs


@compiled
def residuals(x: Any, c: Any, chosen: Any, loc: Any, inverse: Any, slopes: Any) -> Any:
    """What each row is in the units of its component, W_k (x - m_k - B_k c), with shape (n, D)."""
    n, features = x.shape
    found, centred = np.empty((n, features)), np.empty(features)
    for row in range(n):
        k = chosen[row]
        for i in range(features):
            centred[i] = x[row, i] - loc[k, i]
            for j in range(slopes.shape[2]):
                centred[i] -= slopes[k, i, j] * c[row, j]
        for i in range(features):
            total = 0.0
            for j in range(i + 1):
                total += inverse[k, i, j] * centred[j]
            found[row, i] = total
    return found


@compiled
def place(noise: Any, c: Any, chosen: Any, loc: Any, factors: Any, slopes: Any) -> Any:
    """The opposite: m_k + B_k c + L_k z of each row z, (n, D)."""
    n, features = noise.shape
    found = np.empty((n, features))
    for row in range(n):
        k = chosen[row]
        for i in range(features):
            total = loc[k, i]
            for j in range(slopes.shape[2]):
                total += slopes[k, i, j] * c[row, j]
            for j in range(i + 1):
                total += factors[k, i, j] * noise[row, j]
            found[row, i] = total
    return found
