"""A rational-quadratic spline, see `MonotonicRQSTransform`.

The parameters are the unconstrained widths, heights and slopes; the constants the bound, the
logarithm of the smallest slope, and the number of bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskedflow.kernels.elementary import exp, log
from maskedflow.kernels.tile import PANEL_BYTES, jit

#: The most samples in a panel: scratch rows at constant distances need no checks of overlaps.
WIDTH = PANEL_BYTES // 4

# What is known of the samples, a row each: the number of their bin and the part of it before them,
# where it starts on the other axis, its size on this axis and the other, the slopes at its ends,
# and what a sum of sizes on either axis is divided by.
BIN, PART, START, SIZE, OTHER_SIZE, SLOPE0, SLOPE1, TOTAL, OTHER_TOTAL = range(9)
# The gradients, times the sizes, by all sizes before the bin, by its own, and by any; and by the
# logarithms of the slopes.
BEFORE, OWN, ANY, OTHER_BEFORE, OTHER_OWN, OTHER_ANY, BY_SLOPE0, BY_SLOPE1 = range(9, 17)


@jit
def _look_up(phi: Any, constants: Any, x: Any, axis: int, sizes: Any, found: Any) -> None:
    """Finds the bins of samples on an axis, 0 for data and 1 for latents.

    The sizes of all bins, before they are divided by their sums, are left in `sizes`.
    """
    dtype = x.dtype.type
    one, two, zero, half = dtype(1), dtype(2), dtype(0), dtype(0.5)
    bound, bins = constants[0], int(constants[2])
    scale = dtype(-1 / constants[1])
    # Knots are sums in double precision, and nothing is subtracted that may cancel.
    knots = np.empty((2 * bins + 4, WIDTH))
    for upper in range(2):
        first = upper * (bins + 1)
        for j in range(x.size):
            knots[first, j] = 0
        for k in range(bins):
            row = upper * bins + k
            for j in range(x.size):
                size = exp(phi[row, j] / (one + abs(two * scale * phi[row, j])))
                sizes[row, j] = size
                knots[first + k + 1, j] = knots[first + k, j] + size
    first, last = axis * (bins + 1), axis * (bins + 1) + bins
    other, other_last = (1 - axis) * (bins + 1), (1 - axis) * (bins + 1) + bins
    place = 2 * bins + 2
    for j in range(x.size):
        found[BIN, j] = zero
        knots[place, j] = (x[j] + bound) / (2 * bound) * knots[last, j]
    for k in range(1, bins):
        for j in range(x.size):
            found[BIN, j] += one if knots[first + k, j] <= knots[place, j] else zero
    for j in range(x.size):
        k = int(found[BIN, j])
        found[PART, j] = knots[place, j] - knots[first + k, j]
        found[START, j] = bound * (2 * knots[other + k, j] / knots[other_last, j] - 1)
        found[TOTAL, j] = knots[last, j]
        found[OTHER_TOTAL, j] = knots[other_last, j]
        found[SIZE, j] = sizes[axis * bins + k, j]
        found[OTHER_SIZE, j] = sizes[(1 - axis) * bins + k, j]
        found[SLOPE0, j] = phi[2 * bins + k - 1, j] if k > 0 else zero
        found[SLOPE1, j] = phi[2 * bins + k, j] if k < bins - 1 else zero
    length = dtype(2 * bound)
    for j in range(x.size):
        found[PART, j] = min(max(found[PART, j] / found[SIZE, j], zero), one)
        found[SIZE, j] *= length / found[TOTAL, j]
        found[OTHER_SIZE, j] *= length / found[OTHER_TOTAL, j]
        d0, d1 = found[SLOPE0, j], found[SLOPE1, j]
        found[SLOPE0, j] = exp(d0 / (one + abs(scale * d0)))
        found[SLOPE1, j] = exp(d1 / (one + abs(scale * d1)))


@jit
def evaluate(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From data to latents."""
    dtype = x.dtype.type
    one, two, zero = dtype(1), dtype(2), dtype(0)
    bound = dtype(constants[0])
    sizes = np.empty((phi.shape[0], WIDTH), x.dtype)
    found = np.empty((17, WIDTH), x.dtype)
    _look_up(phi, constants, x, 0, sizes, found)
    for j in range(x.size):
        xi, s = found[PART, j], found[OTHER_SIZE, j] / found[SIZE, j]
        d0, d1 = found[SLOPE0, j], found[SLOPE1, j]
        rest = one - xi
        both = xi * rest
        below = s * (xi * xi + rest * rest) + (d0 + d1) * both
        steep = d1 * xi * xi + two * s * both + d0 * rest * rest
        share = xi * (s * xi + d0 * rest) / below
        ratio = s / below
        inside = (x[j] >= -bound) & (x[j] < bound)
        ladj[j] += log(ratio * ratio * steep) if inside else zero
        x[j] = found[START, j] + found[OTHER_SIZE, j] * share if inside else x[j]


@jit
def invert(phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """From latents to data."""
    dtype = x.dtype.type
    one, two, zero = dtype(1), dtype(2), dtype(0)
    bound = dtype(constants[0])
    sizes = np.empty((phi.shape[0], WIDTH), x.dtype)
    found = np.empty((17, WIDTH), x.dtype)
    _look_up(phi, constants, x, 1, sizes, found)
    for j in range(x.size):
        part, s = found[PART, j], found[SIZE, j] / found[OTHER_SIZE, j]
        d0, d1 = found[SLOPE0, j], found[SLOPE1, j]
        # See `solve_bin`.
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
        inside = (x[j] >= -bound) & (x[j] < bound)
        ladj[j] -= log(ratio * ratio * steep) if inside else zero
        x[j] = found[START, j] + found[OTHER_SIZE, j] * xi if inside else x[j]


@jit
def differentiate(phi: Any, constants: Any, x: Any, ladj: Any, dphi: Any, dx: Any) -> None:
    """The gradients."""
    found = np.empty((17, WIDTH), x.dtype)
    _look_up(phi, constants, x, 0, dphi, found)
    _in_bins(constants, x, ladj, found, dx)
    _by_parameters(phi, constants, found, dphi)


@jit
def _in_bins(constants: Any, x: Any, ladj: Any, found: Any, dx: Any) -> None:
    """The gradients by what was looked up."""
    dtype = x.dtype.type
    one, two, zero = dtype(1), dtype(2), dtype(0)
    bound = dtype(constants[0])
    for j in range(x.size):
        xi, width, height = found[PART, j], found[SIZE, j], found[OTHER_SIZE, j]
        d0, d1 = found[SLOPE0, j], found[SLOPE1, j]
        inside = (x[j] >= -bound) & (x[j] < bound)
        by_ladj = ladj[j] if inside else zero
        by_y = dx[j] if inside else zero
        s, rest = height / width, one - xi
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
        by_x = by_xi / width
        mean = own - by_x * (x[j] - xi * width + bound) if inside else zero
        other_mean = other_own + by_y * (found[START, j] + bound)
        found[OWN, j], found[OTHER_OWN, j] = own, other_own
        found[ANY, j] = -mean / found[TOTAL, j]
        found[OTHER_ANY, j] = -other_mean / found[OTHER_TOTAL, j]
        found[BEFORE, j] = (-two * bound * by_x - mean) / found[TOTAL, j]
        found[OTHER_BEFORE, j] = (two * bound * by_y - other_mean) / found[OTHER_TOTAL, j]
        found[BY_SLOPE0, j], found[BY_SLOPE1, j] = by_d0 * d0, by_d1 * d1
        dx[j] = by_x if inside else dx[j]


@jit
def _by_parameters(phi: Any, constants: Any, found: Any, dphi: Any) -> None:
    """The gradients by the parameters, where `dphi` has the sizes of bins."""
    dtype = phi.dtype.type
    one, zero, bins = dtype(1), dtype(0), int(constants[2])
    scale = dtype(-1 / constants[1])
    for row in range(2 * bins):
        k, shift = dtype(row % bins), row // bins * (OTHER_OWN - OWN)
        for j in range(phi.shape[1]):
            clip = one / (one + abs((scale + scale) * phi[row, j]))
            by_size = found[shift + BEFORE, j] if k < found[BIN, j] else found[shift + ANY, j]
            by_own = found[shift + OWN, j] if k == found[BIN, j] else zero
            dphi[row, j] = (dphi[row, j] * by_size + by_own) * clip * clip
    for row in range(2 * bins, 3 * bins - 1):
        k = dtype(row - 2 * bins)
        for j in range(phi.shape[1]):
            clip = one / (one + abs(scale * phi[row, j]))
            by_slope = found[BY_SLOPE1, j] if k == found[BIN, j] else zero
            by_slope += found[BY_SLOPE0, j] if k + one == found[BIN, j] else zero
            dphi[row, j] = by_slope * clip * clip
