"""The steps inside of a block, compiled: a tile of the batch at a time, all generations through.

Rows are (batch) long and neighbours in memory, so the innermost loops are over a tile that stays in
the first-level cache. `table` holds the integers that describe a block, see
:class:`~maskedflow.sweep.compiled.CompiledSteps`.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["forward_kernel", "reverse_kernel"]

Array = NDArray[Any]

TILE = 128
RELU, TANH, ELU, LEAKY_RELU, SILU, SIGMOID, SOFTPLUS, GELU = range(8)

_jit = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})


@_jit
def _add_rows(
    out: Array,
    weights: Array,
    first: int,
    stride: int,
    rows: Array,
    base: int,
    step: int,
    n: int,
    left: int,
    right: int,
) -> None:
    """Adds the weighted rows base + k * step, four at a time: weight k is first + k * stride."""
    k = 0
    while k + 4 <= n:
        w0 = weights[first + k * stride]
        w1 = weights[first + (k + 1) * stride]
        w2 = weights[first + (k + 2) * stride]
        w3 = weights[first + (k + 3) * stride]
        r0 = rows[base + k * step][left:right]
        r1 = rows[base + (k + 1) * step][left:right]
        r2 = rows[base + (k + 2) * step][left:right]
        r3 = rows[base + (k + 3) * step][left:right]
        for j in range(right - left):
            out[j] += (w0 * r0[j] + w1 * r1[j]) + (w2 * r2[j] + w3 * r3[j])
        k += 4
    while k < n:
        w = weights[first + k * stride]
        r = rows[base + k * step][left:right]
        for j in range(right - left):
            out[j] += w * r[j]
        k += 1


@_jit
def _activate(code: int, parameter: float, total: Array, out: Array) -> None:
    zero = total.dtype.type(0)
    one = total.dtype.type(1)
    a = total.dtype.type(parameter)
    for j in range(total.shape[0]):
        t = total[j]
        if code == RELU:
            out[j] = max(t, zero)
        elif code == TANH:
            out[j] = math.tanh(t)
        elif code == ELU:
            out[j] = t if t > zero else a * np.expm1(t)
        elif code == LEAKY_RELU:
            out[j] = t if t > zero else a * t
        elif code == SILU:
            out[j] = t / (one + math.exp(-t))
        elif code == SIGMOID:
            out[j] = one / (one + math.exp(-t))
        elif code == SOFTPLUS:
            out[j] = t if t > 20 else np.log1p(math.exp(t))
        else:
            out[j] = t * (one + math.erf(t * total.dtype.type(math.sqrt(0.5)))) / (one + one)


@_jit
def _invert_affine(
    shift: Array, log_scale: Array, bound: float, z: Array, x: Array, ladj: Array
) -> None:
    limit = z.dtype.type(bound)
    for j in range(z.shape[0]):
        scale = min(max(log_scale[j], -limit), limit)
        x[j] = (z[j] - shift[j]) * math.exp(-scale)
        ladj[j] -= scale


@_jit
def forward_kernel(
    table: Array,
    counts: Array,
    weights: Array,
    activation: int,
    activation_parameter: float,
    univariate: int,
    univariate_parameters: Array,
    sums: Array,
    hidden: Array,
    x: Array,
    z: Array,
    ladj: Array,
) -> None:
    """Finishes the features and units of a block; see `Inside.forward`."""
    layers, parameters, low, high, descending = table[:5]
    step = -1 if descending else 1
    start = high - 1 if descending else low
    offsets, widths, tops, bases, skips = table[5:].reshape(5, -1)
    batch = x.shape[1]
    for left in range(0, batch, TILE):
        right = min(left + TILE, batch)
        for now in range(1, counts.shape[1]):
            for s in range(counts[0, now - 1], counts[0, now]):
                feature = start + step * s
                row = (feature - low) * parameters
                for p in range(row, row + parameters):
                    first = offsets[layers] + p * widths[layers]
                    out = sums[tops[layers] + p][left:right]
                    known = counts[layers, now - 1]
                    if layers == 0:
                        _add_rows(out, weights, first, 1, x, start, step, known, left, right)
                    else:
                        base = bases[layers]
                        _add_rows(out, weights, first, 1, hidden, base, 1, known, left, right)
                _invert_affine(
                    sums[tops[layers] + row][left:right],
                    sums[tops[layers] + row + 1][left:right],
                    univariate_parameters[0],
                    z[feature][left:right],
                    x[feature][left:right],
                    ladj[left:right],
                )
            for layer in range(layers):
                for u in range(counts[layer + 1, now - 1], counts[layer + 1, now]):
                    out = sums[tops[layer] + u][left:right]
                    first = offsets[layer] + u * widths[layer]
                    known = counts[layer, now]
                    if layer == 0:
                        _add_rows(out, weights, first, 1, x, start, step, known, left, right)
                    else:
                        base = bases[layer]
                        _add_rows(out, weights, first, 1, hidden, base, 1, known, left, right)
                    if skips[layer]:
                        below = sums[tops[layer - 2] + u][left:right]
                        for j in range(right - left):
                            out[j] += below[j]
                    result = hidden[bases[layer + 1] + u][left:right]
                    _activate(activation, activation_parameter, out, result)


@_jit
def reverse_kernel(
    table: Array,
    counts: Array,
    weights: Array,
    hidden: Array,
    slope_hidden: Array,
    x: Array,
    slope_x: Array,
    z: Array,
    slope_phi: Array,
) -> None:
    """Solves a block of the transposed Jacobian; see `Inside.reverse`."""
    layers, parameters, low, high, descending = table[:5]
    step = -1 if descending else 1
    start = high - 1 if descending else low
    offsets, widths, _, bases, skips = table[5:].reshape(5, -1)
    last = counts.shape[1] - 1
    batch = x.shape[1]
    for left in range(0, batch, TILE):
        right = min(left + TILE, batch)
        for now in range(last, 0, -1):
            features = counts[0, last] - counts[0, now]
            after = low if descending else low + counts[0, now]
            for level in range(layers, -1, -1):
                for u in range(counts[level, now - 1], counts[level, now]):
                    column = offsets[level] + u
                    width = widths[level]
                    feature = start + step * u
                    out = hidden[bases[level] + u] if level > 0 else x[feature]
                    out = out[left:right]
                    if level == layers:
                        first = column + (after - low) * parameters * width
                        rows = features * parameters
                        base = after * parameters
                        _add_rows(out, weights, first, width, slope_phi, base, 1, rows, left, right)
                    else:
                        row = counts[level + 1, now - 1]
                        first = column + row * width
                        rows = counts[level + 1, last] - row
                        base = bases[level + 1] + row
                        _add_rows(out, weights, first, width, hidden, base, 1, rows, left, right)
                    if level > 0:
                        slope = slope_hidden[bases[level] + u][left:right]
                        for j in range(right - left):
                            out[j] *= slope[j]
                        if level < layers - 1 and skips[level + 1]:
                            above = hidden[bases[level + 2] + u][left:right]
                            for j in range(right - left):
                                out[j] += above[j]
                    else:
                        solution = z[feature][left:right]
                        slope = slope_x[feature][left:right]
                        for j in range(right - left):
                            solution[j] = (solution[j] - out[j]) / slope[j]
                        for p in range(feature * parameters, (feature + 1) * parameters):
                            phi = slope_phi[p][left:right]
                            for j in range(right - left):
                                phi[j] *= solution[j]
