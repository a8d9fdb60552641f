"""The log-density of a mixture of Gaussians, see `MonotonicMixtureTransform`.

The parameters are logits, means and log-precisions; the constant the bound of log-scales.

Here the map is not evaluated, which would cost much more: x stays as it is, and what is added to
ladj is the log-density.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from maskedflow.kernels.elementary import erfcx, exp, inlined, log
from maskedflow.kernels.panel import fixed, width_of
from maskedflow.kernels.tile import jit

# Of a component, a row each: the logarithm of its share of the density, its scale, and the standard
# deviations to x. Of all so far: the greatest such logarithm, and the sum relative to it; and the
# same of the weights.
TERM, SCALE, STANDARD, MOST, SUM, MOST_WEIGHT, SUM_WEIGHT = range(7)
# The gradients by the parameters of a component, and by x.
BY_LOGIT, BY_MEAN, BY_PRECISION, BY_X = range(7, 11)
FACTS = 11


@jit
def evaluate(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """The log-density."""
    width, components = width_of(x), phi.shape[0] // 3
    facts = np.empty((FACTS, width), x.dtype)
    _start(facts)
    for k in range(components):
        _add(phi, constants, k, x, facts)
    facts_ = fixed(facts, width)
    constant = x.dtype.type(0.5 * math.log(2 * math.pi))
    for j in range(width):
        share = log(facts_[SUM, j] / facts_[SUM_WEIGHT, j])
        facts_[TERM, j] = (facts_[MOST, j] - facts_[MOST_WEIGHT, j]) + (share - constant)
    for j in range(width):
        ladj[j] += facts[TERM, j]


@jit
def differentiate(phi: Any, constants: Any, x: Any, ladj: Any, dphi: Any, dx: Any) -> None:
    """The gradients."""
    width, components = width_of(x), phi.shape[0] // 3
    facts = np.empty((FACTS, width), x.dtype)
    _start(facts)
    for k in range(components):
        _add(phi, constants, k, x, facts)
        _copy(facts, TERM, dphi, k)
        _copy(facts, STANDARD, dphi, components + k)
        _copy(facts, SCALE, dphi, 2 * components + k)
    for k in range(components):
        _differentiate_component(phi, constants, k, ladj, dphi, facts)
        for which in range(3):
            _copy(facts, BY_LOGIT + which, dphi, which * components + k)
    for j in range(width):
        dx[j] = facts[BY_X, j]


@jit
def _start(facts: Any) -> None:
    width, least = width_of(facts), np.finfo(facts.dtype).min
    for j in range(width):
        facts[MOST, j], facts[MOST_WEIGHT, j] = least, least
        facts[SUM, j], facts[SUM_WEIGHT, j], facts[BY_X, j] = 0, 0, 0


@jit
def _copy(facts: Any, source: int, dphi: Any, target: int) -> None:
    for j in range(width_of(facts)):
        dphi[target, j] = facts[source, j]


@jit
def _add(phi: Any, constants: Any, k: int, x: Any, facts: Any) -> None:
    """Adds a component to the sums."""
    dtype, width, components = x.dtype.type, width_of(x), phi.shape[0] // 3
    one, zero, half = dtype(1), dtype(0), dtype(0.5)
    bound, far = dtype(constants[0]), dtype(0.1) * np.sqrt(np.finfo(x.dtype).max)
    phi, facts = fixed(phi, width), fixed(facts, width)
    for j in range(width):
        weight, mean, log_precision = phi[k, j], phi[components + k, j], phi[2 * components + k, j]
        log_scale = min(max(half * log_precision, -bound), bound)
        scale = exp(log_scale)
        standard = min(max((x[j] - mean) * scale, -far), far)
        term = weight + log_scale - half * standard * standard
        facts[TERM, j], facts[SCALE, j], facts[STANDARD, j] = term, scale, standard
        # Sums are relative to the greatest so far: of what is added and the sum, one is scaled.
        step, total = term - facts[MOST, j], facts[SUM, j]
        part = exp(-abs(step))
        facts[SUM, j] = total * part + one if step > zero else total + part
        facts[MOST, j] = max(term, facts[MOST, j])
        step, total = weight - facts[MOST_WEIGHT, j], facts[SUM_WEIGHT, j]
        part = exp(-abs(step))
        facts[SUM_WEIGHT, j] = total * part + one if step > zero else total + part
        facts[MOST_WEIGHT, j] = max(weight, facts[MOST_WEIGHT, j])


@jit
def _differentiate_component(
    phi: Any, constants: Any, k: int, ladj: Any, dphi: Any, facts: Any
) -> None:
    """The gradients by the parameters of a component, of which `dphi` has what `_add` found."""
    dtype, width, components = phi.dtype.type, width_of(phi), phi.shape[0] // 3
    one, zero, half = dtype(1), dtype(0), dtype(0.5)
    bound, far = dtype(constants[0]), dtype(0.1) * np.sqrt(np.finfo(phi.dtype).max)
    phi, dphi, facts = fixed(phi, width), fixed(dphi, width), fixed(facts, width)
    for j in range(width):
        term, standard, scale = dphi[k, j], dphi[components + k, j], dphi[2 * components + k, j]
        weight, log_precision, by_density = phi[k, j], phi[2 * components + k, j], ladj[j]
        share = exp(weight - facts[MOST_WEIGHT, j]) / facts[SUM_WEIGHT, j]
        by_term = by_density * exp(term - facts[MOST, j]) / facts[SUM, j]
        facts[BY_LOGIT, j] = by_term - by_density * share
        # Nothing gets past a clamp.
        steep = standard if abs(standard) < far else zero
        by_log_scale = half * by_term * (one - steep * steep)
        facts[BY_PRECISION, j] = by_log_scale if abs(half * log_precision) <= bound else zero
        by_mean = by_term * steep * scale
        facts[BY_MEAN, j] = by_mean
        facts[BY_X, j] -= by_mean


# In the search for x, of a sample: the equation's right side, the hazard of N(0, 1), the sign of
# the tail, a bracket of the root, the guess, the last step, and the step that ends the search.
TARGET, HAZARD, SIGN, LOW, HIGH, GUESS, LAST, LEAST = range(8)
# And of the tail at the guess: the greatest probability of a component, in logarithms, the sums of
# probabilities and of hazards relative to it, and a component's own.
TOP, PROBABILITY, RATE, COMPONENT, COMPONENT_RATE = range(8, 13)
ROWS = 13
MOST_STEPS = 120
FAR = 1e153  # standard deviations, whose square is finite


@jit
def invert(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From latents of N(0, 1) to data, in double precision, as the torch class does it."""
    width = width_of(x)
    parts, rows = np.empty((phi.shape[0], width)), np.empty((ROWS, width))
    _measure(phi, constants, x, parts)
    _enclose(phi, x, parts, rows)
    for _ in range(MOST_STEPS):
        _find_tail(x, parts, rows)
        if not _search(x, rows):
            break
    for _ in range(2):
        _find_tail(x, parts, rows)
        _refine(x, rows)
    _find_tail(x, parts, rows)
    for j in range(width):
        rows[RATE, j] = log(rows[RATE, j] / (rows[PROBABILITY, j] * rows[HAZARD, j]))
    for j in range(width):
        x[j] = rows[GUESS, j]
        ladj[j] -= rows[RATE, j]


@jit
def _measure(phi: Any, constants: Any, x: Any, parts: Any) -> None:
    """The log-weights, means and scales of the components."""
    width, components, bound = width_of(x), phi.shape[0] // 3, constants[0]
    phi, parts = fixed(phi, width), fixed(parts, width)
    for j in range(width):
        parts[0, j] = phi[0, j]
        parts[components, j] = 1.0
    for k in range(1, components):  # the logarithm of the sum of weights, for now in two rows
        for j in range(width):
            step = phi[k, j] - parts[0, j]
            part, total = exp(-abs(step)), parts[components, j]
            parts[components, j] = total * part + 1.0 if step > 0 else total + part
            parts[0, j] = max(parts[0, j], np.float64(phi[k, j]))
    for j in range(width):
        parts[0, j] += log(parts[components, j])
    for k in range(components - 1, -1, -1):
        for j in range(width):
            parts[k, j] = phi[k, j] - parts[0, j]
    for k in range(components):
        for j in range(width):
            parts[components + k, j] = phi[components + k, j]
        for j in range(width):
            log_precision = np.float64(phi[2 * components + k, j])
            parts[2 * components + k, j] = exp(min(max(0.5 * log_precision, -bound), bound))


@jit
def _enclose(phi: Any, x: Any, parts: Any, rows: Any) -> None:
    """The equation, for the smaller tail, and between what its root lies."""
    width, components = width_of(x), phi.shape[0] // 3
    parts, rows = fixed(parts, width), fixed(rows, width)
    for j in range(width):
        z = np.float64(x[j])
        sign = 1.0 if z < 0 else -1.0
        log_p, hazard = _normal_tail(sign * z)
        rows[SIGN, j], rows[HAZARD, j], rows[TARGET, j] = sign, hazard, sign * _root(log_p)
        rows[LOW, j], rows[HIGH, j], rows[LEAST, j], rows[GUESS, j] = np.inf, -np.inf, np.inf, 0.0
        rows[LAST, j] = z
    for k in range(components):
        for j in range(width):
            spread = 1.0 / parts[2 * components + k, j]
            quantile = parts[components + k, j] + rows[LAST, j] * spread
            rows[LOW, j], rows[HIGH, j] = min(rows[LOW, j], quantile), max(rows[HIGH, j], quantile)
            rows[LEAST, j] = min(rows[LEAST, j], 1e-4 * spread)
            rows[GUESS, j] += exp(parts[k, j]) * quantile
    for j in range(width):
        low, high = rows[LOW, j], rows[HIGH, j]
        rows[GUESS, j], rows[LAST, j] = min(max(rows[GUESS, j], low), high), high - low


@inlined
def _normal_tail(v: float) -> tuple[float, float]:
    """The log-probability below v, and phi(v) / Phi(v), in which the squares have cancelled."""
    y = abs(v) * math.sqrt(0.5)
    scaled, square = erfcx(y), exp(-y * y)
    lower, upper = 0.5 * scaled, 1.0 - 0.5 * scaled * square
    # Below zero, all is without the factor exp(-y^2).
    p, density, log_factor = (lower, 1.0, y * y) if v < 0 else (upper, square, 0.0)
    return log(p) - log_factor, math.sqrt(0.5 / math.pi) * density / p


@inlined
def _root(log_p: float) -> float:
    # At a probability of one the root would have no slope; no root that is sought is near.
    return -math.sqrt(-2.0 * min(log_p, -2.220446049250313e-16))


@jit
def _find_tail(x: Any, parts: Any, rows: Any) -> None:
    """The probability of the tail at the guesses, and its hazard."""
    for j in range(width_of(x)):
        rows[TOP, j], rows[PROBABILITY, j], rows[RATE, j] = np.finfo(np.float64).min, 0.0, 0.0
    for k in range(parts.shape[0] // 3):
        _add_tail(k, x, parts, rows)


@jit
def _add_tail(k: int, x: Any, parts: Any, rows: Any) -> None:
    """Adds a component's tail to the sums."""
    width, components = width_of(x), parts.shape[0] // 3
    parts, rows = fixed(parts, width), fixed(rows, width)
    for j in range(width):
        mean, scale = parts[components + k, j], parts[2 * components + k, j]
        standard = min(max((rows[GUESS, j] - mean) * scale, -FAR), FAR)
        log_p, hazard = _normal_tail(rows[SIGN, j] * standard)
        rows[COMPONENT, j], rows[COMPONENT_RATE, j] = log_p, hazard * scale
    for j in range(width):
        log_p, top = rows[COMPONENT, j] + parts[k, j], rows[TOP, j]
        part = exp(-abs(log_p - top))
        total, rate, new = rows[PROBABILITY, j], rows[RATE, j], rows[COMPONENT_RATE, j]
        rows[PROBABILITY, j] = total * part + 1.0 if log_p > top else total + part
        rows[RATE, j] = rate * part + new if log_p > top else rate + new * part
        rows[TOP, j] = max(top, log_p)


@inlined
def _newton(rows: Any, j: int) -> tuple[float, float]:
    """How far the tail is from the equation, and the way to its root by the tangent."""
    root = _root(rows[TOP, j] + log(rows[PROBABILITY, j]))
    error = rows[SIGN, j] * root - rows[TARGET, j]
    return error, error * root * rows[PROBABILITY, j] / rows[RATE, j]


@jit
def _search(x: Any, rows: Any) -> bool:
    """A step of each search, and whether one goes on."""
    width, goes_on = width_of(x), 0
    rows = fixed(rows, width)
    for j in range(width):
        guess = rows[GUESS, j]
        error, way = _newton(rows, j)
        low = rows[LOW, j] if error > 0 else guess
        high = guess if error > 0 else rows[HIGH, j]
        new = guess + way
        # False where the slope is 0 or something is NaN, too.
        is_good = (low <= new) & (new <= high) & (2.0 * abs(way) <= rows[LAST, j])
        new = new if is_good else 0.5 * low + 0.5 * high
        step = abs(new - guess)
        rows[LOW, j], rows[HIGH, j], rows[GUESS, j], rows[LAST, j] = low, high, new, step
        goes_on += 1 if step > rows[LEAST, j] + 1e-15 * abs(guess) else 0
    return goes_on > 0


@jit
def _refine(x: Any, rows: Any) -> None:
    """A last step of Newton's method: where F is flat, a rounding error makes it no longer."""
    width = width_of(x)
    rows = fixed(rows, width)
    for j in range(width):
        reach = max(rows[HIGH, j] - rows[LOW, j], rows[LEAST, j] + 1e-15 * abs(rows[GUESS, j]))
        _, way = _newton(rows, j)
        rows[GUESS, j] += min(max(way, -reach), reach)
