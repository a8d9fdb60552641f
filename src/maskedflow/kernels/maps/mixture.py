"""The log-density of a mixture of Gaussians, see `MonotonicMixtureTransform`.

The parameters are logits, means and log-precisions; the constant the bound of log-scales.

Here the map is not evaluated, which would cost much more: x stays as it is, and what is added to
ladj is the log-density.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from maskedflow.kernels.elementary import exp, log
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
