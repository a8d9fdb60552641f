"""A rational-quadratic spline, see `MonotonicRQSTransform`.

The parameters are the unconstrained widths, heights and slopes; the constants the bound, the
logarithm of the smallest slope, and the number of bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskedflow.kernels.elementary import exp, log
from maskedflow.kernels.panel import fixed, width_of
from maskedflow.kernels.tile import jit

# What is known of the samples, a row each: the number of their bin and the part of it before them,
# where it starts on the other axis, its size on this axis and the other, the slopes at its ends,
# and what a sum of sizes on either axis is divided by.
BIN, PART, START, SIZE, OTHER_SIZE, SLOPE0, SLOPE1, TOTAL, OTHER_TOTAL = range(9)
# The gradients, times the sizes, by all sizes before the bin, by its own, and by any; and by the
# logarithms of the slopes.
BEFORE, OWN, ANY, OTHER_BEFORE, OTHER_OWN, OTHER_ANY, BY_SLOPE0, BY_SLOPE1 = range(9, 17)
# The two factors of the slope.
RATIO, STEEP = range(9, 11)
FACTS = 17


@jit
def _look_up(phi: Any, constants: Any, x: Any, axis: int, sizes: Any, found: Any) -> None:
    """Finds the bins of samples on an axis, 0 for data and 1 for latents.

    The sizes of all bins, before they are divided by their sums, are left in `sizes`.
    """
    # Knots are sums in double precision, and nothing is subtracted that may cancel.
    knots = np.empty((2 * int(constants[2]) + 3, width_of(x)))
    _measure(phi, constants, sizes, knots)
    _count(constants, x, axis, knots, found)
    _gather(phi, constants, axis, sizes, knots, found)
    _normalise(constants, found)


@jit
def _measure(phi: Any, constants: Any, sizes: Any, knots: Any) -> None:
    """The sizes of all bins, and the knots: the sums of those before."""
    dtype, width, bins = phi.dtype.type, width_of(phi), int(constants[2])
    one, scale = dtype(1), dtype(-2 / constants[1])
    phi, sizes, knots = fixed(phi, width), fixed(sizes, width), fixed(knots, width)
    for axis in range(2):
        for j in range(width):
            knots[axis * (bins + 1), j] = 0
        for k in range(bins):
            row, knot = axis * bins + k, axis * (bins + 1) + k
            for j in range(width):
                value = phi[row, j]
                sizes[row, j] = exp(value / (one + abs(scale * value)))
            for j in range(width):
                knots[knot + 1, j] = knots[knot, j] + sizes[row, j]


@jit
def _count(constants: Any, x: Any, axis: int, knots: Any, found: Any) -> None:
    """The bins, and the places of samples in sums of sizes."""
    dtype, width, bins = x.dtype.type, width_of(x), int(constants[2])
    one, zero = dtype(1), dtype(0)
    bound = constants[0]
    knots, found = fixed(knots, width), fixed(found, width)
    first, place = axis * (bins + 1), 2 * bins + 2
    scale = 1 / (2 * bound)
    for j in range(width):
        knots[place, j] = (x[j] + bound) * scale * knots[first + bins, j]
        found[BIN, j] = zero
    for k in range(1, bins):
        for j in range(width):
            found[BIN, j] += one if knots[first + k, j] <= knots[place, j] else zero


@jit
def _gather(phi: Any, constants: Any, axis: int, sizes: Any, knots: Any, found: Any) -> None:
    dtype, width, bins = phi.dtype.type, width_of(phi), int(constants[2])
    bound = constants[0]
    zero = dtype(0)
    phi, sizes, knots, found = (
        fixed(phi, width),
        fixed(sizes, width),
        fixed(knots, width),
        fixed(found, width),
    )
    first, last = axis * (bins + 1), axis * (bins + 1) + bins
    other, other_last = (1 - axis) * (bins + 1), (1 - axis) * (bins + 1) + bins
    place = 2 * bins + 2
    for j in range(width):
        k = int(found[BIN, j])
        found[PART, j] = knots[place, j] - knots[first + k, j]
        found[START, j] = bound * (2 * knots[other + k, j] / knots[other_last, j] - 1)
        found[TOTAL, j] = knots[last, j]
        found[OTHER_TOTAL, j] = knots[other_last, j]
        found[SIZE, j] = sizes[axis * bins + k, j]
        found[OTHER_SIZE, j] = sizes[(1 - axis) * bins + k, j]
        found[SLOPE0, j] = phi[2 * bins + k - 1, j] if k > 0 else zero
        found[SLOPE1, j] = phi[2 * bins + k, j] if k < bins - 1 else zero


@jit
def _normalise(constants: Any, found: Any) -> None:
    dtype, width = found.dtype.type, width_of(found)
    one, zero = dtype(1), dtype(0)
    length, scale = dtype(2 * constants[0]), dtype(-1 / constants[1])
    found = fixed(found, width)
    for j in range(width):
        found[PART, j] = min(max(found[PART, j] / found[SIZE, j], zero), one)
        found[SIZE, j] *= length / found[TOTAL, j]
        found[OTHER_SIZE, j] *= length / found[OTHER_TOTAL, j]
        d0, d1 = found[SLOPE0, j], found[SLOPE1, j]
        found[SLOPE0, j] = exp(d0 / (one + abs(scale * d0)))
        found[SLOPE1, j] = exp(d1 / (one + abs(scale * d1)))


@jit
def evaluate(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From data to latents."""
    sizes = np.empty((phi.shape[0], width_of(x)), x.dtype)
    found = np.empty((FACTS, width_of(x)), x.dtype)
    _look_up(phi, constants, x, 0, sizes, found)
    _evaluate_bins(constants, x, ladj, found)


@jit
def invert(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From latents to data."""
    sizes = np.empty((phi.shape[0], width_of(x)), x.dtype)
    found = np.empty((FACTS, width_of(x)), x.dtype)
    _look_up(phi, constants, x, 1, sizes, found)
    _invert_bins(constants, x, ladj, found)


@jit
def _evaluate_bins(constants: Any, x: Any, ladj: Any, found: Any) -> None:
    dtype, width = x.dtype.type, width_of(x)
    one, two = dtype(1), dtype(2)
    bound = dtype(constants[0])
    found = fixed(found, width)
    for j in range(width):
        before, xi, start = x[j], found[PART, j], found[START, j]
        size, height = found[SIZE, j], found[OTHER_SIZE, j]
        d0, d1 = found[SLOPE0, j], found[SLOPE1, j]
        s, rest = height / size, one - xi
        both = xi * rest
        below = s * (xi * xi + rest * rest) + (d0 + d1) * both
        steep = d1 * xi * xi + two * s * both + d0 * rest * rest
        ratio = s / below
        inside = (before >= -bound) & (before < bound)
        after = start + height * (xi * (s * xi + d0 * rest) / below)
        x[j] = after if inside else before
        found[RATIO, j] = ratio if inside else one
        found[STEEP, j] = steep if inside else one
    for j in range(width):
        ladj[j] += two * log(found[RATIO, j]) + log(found[STEEP, j])


@jit
def _invert_bins(constants: Any, x: Any, ladj: Any, found: Any) -> None:
    dtype, width = x.dtype.type, width_of(x)
    one, two, zero = dtype(1), dtype(2), dtype(0)
    bound = dtype(constants[0])
    found = fixed(found, width)
    for j in range(width):
        before, part, start = x[j], found[PART, j], found[START, j]
        height, size = found[SIZE, j], found[OTHER_SIZE, j]
        d0, d1 = found[SLOPE0, j], found[SLOPE1, j]
        # See `solve_bin`.
        s = height / size
        low, high = two * s * part, two * s * (one - part)
        u = d1 * part - d0 * (one - part)
        root = abs(u) + np.sqrt(u * u + low * high)
        left = root if u > zero else low
        right = high if u > zero else root
        xi, rest = left / (left + right), right / (left + right)
        both = xi * rest
        below = s * (xi * xi + rest * rest) + (d0 + d1) * both
        steep = d1 * xi * xi + two * s * both + d0 * rest * rest
        ratio = s / below
        inside = (before >= -bound) & (before < bound)
        after = start + size * xi
        x[j] = after if inside else before
        found[RATIO, j] = ratio if inside else one
        found[STEEP, j] = steep if inside else one
    for j in range(width):
        ladj[j] -= two * log(found[RATIO, j]) + log(found[STEEP, j])


@jit
def differentiate(phi: Any, constants: Any, x: Any, ladj: Any, dphi: Any, dx: Any) -> None:
    """The gradients."""
    found = np.empty((FACTS, width_of(x)), x.dtype)
    _look_up(phi, constants, x, 0, dphi, found)
    _in_bins(constants, x, ladj, found, dx)
    _by_parameters(phi, constants, found, dphi)


@jit
def _in_bins(constants: Any, x: Any, ladj: Any, found: Any, dx: Any) -> None:
    """The gradients by what was looked up."""
    dtype, width = x.dtype.type, width_of(x)
    one, two, zero = dtype(1), dtype(2), dtype(0)
    bound = dtype(constants[0])
    found = fixed(found, width)
    for j in range(width):
        xi, size, height = found[PART, j], found[SIZE, j], found[OTHER_SIZE, j]
        d0, d1 = found[SLOPE0, j], found[SLOPE1, j]
        inside = (x[j] >= -bound) & (x[j] < bound)
        by_ladj = ladj[j]
        by_ladj = by_ladj if inside else zero
        by_z = dx[j]
        by_y = by_z if inside else zero
        s, rest = height / size, one - xi
        both = xi * rest
        near, far = xi * xi, rest * rest
        over = one / (s * (near + far) + (d0 + d1) * both)
        steep = d1 * near + two * s * both + d0 * far
        by_steep, by_below = by_ladj / steep, two * by_ladj * over
        by_share = by_y * height * over * over
        by_s = s * (
            by_share * both * (d1 * near - d0 * far)
            - by_below * (near + far)
            + two * by_steep * both
        )
        by_s += two * by_ladj
        by_xi = by_share * s * steep - by_below * (rest - xi) * (d0 + d1 - two * s)
        by_xi += two * by_steep * (d1 * xi + s * (rest - xi) - d0 * rest)
        by_d0 = by_share * both * rest * (s * rest + d1 * xi) - by_below * both + by_steep * far
        by_d1 = by_steep * near - by_share * both * xi * (s * xi + d0 * rest) - by_below * both
        share = xi * (s * xi + d0 * rest) * over
        own, other_own = -by_xi * xi - by_s, by_y * height * share + by_s
        by_x = by_xi / size
        mean = own - by_x * (x[j] - xi * size + bound) if inside else zero
        other_mean = other_own + by_y * (found[START, j] + bound)
        found[OWN, j], found[OTHER_OWN, j] = own, other_own
        found[ANY, j] = -mean / found[TOTAL, j]
        found[OTHER_ANY, j] = -other_mean / found[OTHER_TOTAL, j]
        found[BEFORE, j] = (-two * bound * by_x - mean) / found[TOTAL, j]
        found[OTHER_BEFORE, j] = (two * bound * by_y - other_mean) / found[OTHER_TOTAL, j]
        found[BY_SLOPE0, j], found[BY_SLOPE1, j] = by_d0 * d0, by_d1 * d1
        dx[j] = by_x if inside else by_z


@jit
def _by_parameters(phi: Any, constants: Any, found: Any, dphi: Any) -> None:
    """The gradients by the parameters, where `dphi` has the sizes of bins."""
    dtype, width = phi.dtype.type, width_of(phi)
    phi, found, dphi = fixed(phi, width), fixed(found, width), fixed(dphi, width)
    one, zero, bins = dtype(1), dtype(0), int(constants[2])
    scale = dtype(-1 / constants[1])
    for row in range(2 * bins):
        k, shift = dtype(row % bins), row // bins * (OTHER_OWN - OWN)
        for j in range(width):
            clip = one / (one + abs((scale + scale) * phi[row, j]))
            before, own, other = (
                found[shift + BEFORE, j],
                found[shift + OWN, j],
                found[shift + ANY, j],
            )
            by_size = before if k < found[BIN, j] else other
            own = own if k == found[BIN, j] else zero
            dphi[row, j] = (dphi[row, j] * by_size + own) * clip * clip
    for row in range(2 * bins, 3 * bins - 1):
        k = dtype(row - 2 * bins)
        for j in range(width):
            clip = one / (one + abs(scale * phi[row, j]))
            by_slope0, by_slope1 = found[BY_SLOPE0, j], found[BY_SLOPE1, j]
            by_slope = by_slope1 if k == found[BIN, j] else zero
            by_slope += by_slope0 if k + one == found[BIN, j] else zero
            dphi[row, j] = by_slope * clip * clip
