"""The steps inside of a block, compiled.

Rows are features or units, as long as the batch, so the innermost loops are over neighbours in
memory, and long enough for their overhead not to count. One core works here and all of them in the
matrix products: threads that share these short loops cost more than they bring. `table` and
`counts` describe a block, see :class:`~maskedflow.sweep.Block`.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["forward_kernel", "reverse_kernel"]

Array = NDArray[Any]

RELU, TANH, ELU, LEAKY_RELU, SILU, SIGMOID, SOFTPLUS, GELU = range(8)
AFFINE, SPLINE = range(2)

_jit = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})


@_jit
def _add_product(
    outs: Array,
    out: int,
    out_step: int,
    m: int,
    weights: Array,
    first: int,
    stride_m: int,
    stride_n: int,
    rows: Array,
    row: int,
    row_step: int,
    n: int,
) -> None:
    """Adds a small matrix product to m rows from `out` on, of n rows from `row` on.

    Weight (u, k) is weights[first + u * stride_m + k * stride_n]. Four by four rows at a time stay
    in registers; the rest goes one by one.
    """
    width = rows.shape[1]
    u = 0
    while u < m:
        four = u + 4 <= m
        o0 = outs[out + u * out_step]
        k = 0
        w = first + u * stride_m
        if four:
            o1 = outs[out + (u + 1) * out_step]
            o2 = outs[out + (u + 2) * out_step]
            o3 = outs[out + (u + 3) * out_step]
            while k + 4 <= n:
                r0 = rows[row + k * row_step]
                r1 = rows[row + (k + 1) * row_step]
                r2 = rows[row + (k + 2) * row_step]
                r3 = rows[row + (k + 3) * row_step]
                i0 = w + k * stride_n
                i1 = i0 + stride_m
                i2 = i1 + stride_m
                i3 = i2 + stride_m
                a0, a1 = weights[i0], weights[i0 + stride_n]
                a2, a3 = weights[i0 + 2 * stride_n], weights[i0 + 3 * stride_n]
                b0, b1 = weights[i1], weights[i1 + stride_n]
                b2, b3 = weights[i1 + 2 * stride_n], weights[i1 + 3 * stride_n]
                c0, c1 = weights[i2], weights[i2 + stride_n]
                c2, c3 = weights[i2 + 2 * stride_n], weights[i2 + 3 * stride_n]
                d0, d1 = weights[i3], weights[i3 + stride_n]
                d2, d3 = weights[i3 + 2 * stride_n], weights[i3 + 3 * stride_n]
                for j in range(width):
                    x0, x1, x2, x3 = r0[j], r1[j], r2[j], r3[j]
                    o0[j] += (a0 * x0 + a1 * x1) + (a2 * x2 + a3 * x3)
                    o1[j] += (b0 * x0 + b1 * x1) + (b2 * x2 + b3 * x3)
                    o2[j] += (c0 * x0 + c1 * x1) + (c2 * x2 + c3 * x3)
                    o3[j] += (d0 * x0 + d1 * x1) + (d2 * x2 + d3 * x3)
                k += 4
            while k < n:
                r0 = rows[row + k * row_step]
                i0 = w + k * stride_n
                a0, b0 = weights[i0], weights[i0 + stride_m]
                c0, d0 = weights[i0 + 2 * stride_m], weights[i0 + 3 * stride_m]
                for j in range(width):
                    x0 = r0[j]
                    o0[j] += a0 * x0
                    o1[j] += b0 * x0
                    o2[j] += c0 * x0
                    o3[j] += d0 * x0
                k += 1
            u += 4
        else:
            while k + 4 <= n:
                r0 = rows[row + k * row_step]
                r1 = rows[row + (k + 1) * row_step]
                r2 = rows[row + (k + 2) * row_step]
                r3 = rows[row + (k + 3) * row_step]
                i0 = w + k * stride_n
                a0, a1 = weights[i0], weights[i0 + stride_n]
                a2, a3 = weights[i0 + 2 * stride_n], weights[i0 + 3 * stride_n]
                for j in range(width):
                    o0[j] += (a0 * r0[j] + a1 * r1[j]) + (a2 * r2[j] + a3 * r3[j])
                k += 4
            while k < n:
                r0 = rows[row + k * row_step]
                a0 = weights[w + k * stride_n]
                for j in range(width):
                    o0[j] += a0 * r0[j]
                k += 1
            u += 1


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
def _invert_spline(
    sums: Array, top: int, parameters: Array, z: Array, x: Array, ladj: Array
) -> None:
    """Inverts a rational-quadratic spline; see `MonotonicRQSTransform`."""
    one = z.dtype.type(1)
    two = z.dtype.type(2)
    bound = z.dtype.type(parameters[0])
    limit = z.dtype.type(-parameters[1])
    bins = int(parameters[2])
    total_width = np.zeros_like(z)
    total_height = np.zeros_like(z)
    for k in range(bins):
        widths = sums[top + k]
        heights = sums[top + bins + k]
        for j in range(z.shape[0]):
            widths[j] = math.exp(widths[j] / (one + abs(two * widths[j] / limit)))
            heights[j] = math.exp(heights[j] / (one + abs(two * heights[j] / limit)))
            total_width[j] += widths[j]
            total_height[j] += heights[j]
    for j in range(z.shape[0]):
        y = z[j]
        x0 = y0 = -bound
        done = y < -bound
        x[j] = y
        for k in range(bins):
            width = two * bound * sums[top + k, j] / total_width[j]
            height = two * bound * sums[top + bins + k, j] / total_height[j]
            if not done and y < y0 + height:
                done = True
                d0 = d1 = one
                if k > 0:
                    d = sums[top + 2 * bins + k - 1, j]
                    d0 = math.exp(d / (one + abs(d / limit)))
                if k < bins - 1:
                    d = sums[top + 2 * bins + k, j]
                    d1 = math.exp(d / (one + abs(d / limit)))
                s = height / width
                curve = (y - y0) * (d0 + d1 - two * s)
                a = height * (s - d0) + curve
                b = height * d0 - curve
                c = -s * (y - y0)
                xi = two * c / (-b - math.sqrt(max(b * b - two * two * a * c, z.dtype.type(0))))
                both = xi * (one - xi)
                below = s + (d0 + d1 - two * s) * both
                slope = d1 * xi * xi + two * s * both + d0 * (one - xi) * (one - xi)
                x[j] = x0 + xi * width
                ladj[j] -= math.log(slope) + two * math.log(s / below)
            x0 += width
            y0 += height


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
    """Finishes the features and units of a block."""
    layers, parameters, low, high, descending = table[:5]
    step = -1 if descending else 1
    start = high - 1 if descending else low
    offsets, widths, tops, bases, skips = table[5:].reshape(5, -1)
    batch = x.shape[1]
    for now in range(1, counts.shape[1]):
        s0, s1 = counts[0, now - 1], counts[0, now]
        lowest = start + 1 - s1 if descending else start + s0
        row = (lowest - low) * parameters
        top = tops[layers] + row
        known = counts[layers, now - 1]
        m = (s1 - s0) * parameters
        width = widths[layers]
        first = offsets[layers] + row * width
        rows, base, base_step = (hidden, bases[layers], 1)
        if layers == 0:
            rows, base, base_step = (x, start, step)
        _add_product(sums, top, 1, m, weights, first, width, 1, rows, base, base_step, known)
        for feature in range(lowest, lowest + s1 - s0):
            if univariate == AFFINE:
                bound = univariate_parameters[0]
                _invert_affine(sums[top], sums[top + 1], bound, z[feature], x[feature], ladj)
            else:
                _invert_spline(sums, top, univariate_parameters, z[feature], x[feature], ladj)
            top += parameters
        for layer in range(layers):
            u0, u1 = counts[layer + 1, now - 1], counts[layer + 1, now]
            top = tops[layer] + u0
            width = widths[layer]
            first = offsets[layer] + u0 * width
            m = u1 - u0
            known = counts[layer, now]
            rows, base, base_step = (hidden, bases[layer], 1)
            if layer == 0:
                rows, base, base_step = (x, start, step)
            _add_product(sums, top, 1, m, weights, first, width, 1, rows, base, base_step, known)
            for u in range(u0, u1):
                out = sums[tops[layer] + u]
                if skips[layer]:
                    below = sums[tops[layer - 2] + u]
                    for j in range(batch):
                        out[j] += below[j]
                result = hidden[bases[layer + 1] + u]
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
    """Solves a block of the transposed Jacobian."""
    layers, parameters, low, high, descending = table[:5]
    step = -1 if descending else 1
    start = high - 1 if descending else low
    offsets, widths, _, bases, skips = table[5:].reshape(5, -1)
    last = counts.shape[1] - 1
    batch = x.shape[1]
    for now in range(last, 0, -1):
        features = counts[0, last] - counts[0, now]
        after = low if descending else low + counts[0, now]
        for level in range(layers, -1, -1):
            u0, u1 = counts[level, now - 1], counts[level, now]
            outs, out, out_step = (hidden, bases[level] + u0, 1)
            if level == 0:
                outs, out, out_step = (x, start + step * u0, step)
            width = widths[level]
            first = offsets[level] + u0
            if level == layers:
                first += (after - low) * parameters * width
                rows, row, n = slope_phi, after * parameters, features * parameters
            else:
                later = counts[level + 1, now - 1]
                first += later * width
                rows, row = hidden, bases[level + 1] + later
                n = counts[level + 1, last] - later
            _add_product(outs, out, out_step, u1 - u0, weights, first, 1, width, rows, row, 1, n)
            for u in range(u0, u1):
                if level > 0:
                    adjoint = hidden[bases[level] + u]
                    slope = slope_hidden[bases[level] + u]
                    for j in range(batch):
                        adjoint[j] *= slope[j]
                    if level < layers - 1 and skips[level + 1]:
                        above = hidden[bases[level + 2] + u]
                        for j in range(batch):
                            adjoint[j] += above[j]
                else:
                    feature = start + step * u
                    adjoint = x[feature]
                    solution = z[feature]
                    slope = slope_x[feature]
                    for j in range(batch):
                        solution[j] = (solution[j] - adjoint[j]) / slope[j]
                    for p in range(feature * parameters, (feature + 1) * parameters):
                        phi = slope_phi[p]
                        for j in range(batch):
                            phi[j] *= solution[j]
