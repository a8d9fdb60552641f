"""Activations, their slopes, and inverses of univariate maps, on rows of a panel."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import register_jitable

from maskedflow.kernels import Activation, Map

from .tile import jit


def _exp(x: Any) -> Any:
    raise NotImplementedError


@numba.extending.overload(_exp, inline="never")
def _exp_of_type(x: Any) -> Any:
    """The exponential, from operations that a compiler makes vectors of; libm's are scalar."""
    if x == types.float32:
        return _exp32
    return _exp64


@register_jitable
def _exp32(x: Any) -> Any:
    # Cephes' expf: reduced by multiples of log 2, which are in two parts, then a polynomial.
    x = min(max(x, np.float32(-87.33)), np.float32(88.72))
    n = np.floor(x * np.float32(1.44269504088896341) + np.float32(0.5))
    x = x - n * np.float32(0.693359375)
    x = x - n * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * x + np.float32(1.3981999507e-3)
    p = p * x + np.float32(8.3334519073e-3)
    p = p * x + np.float32(4.1665795894e-2)
    p = p * x + np.float32(1.6666665459e-1)
    p = p * x + np.float32(5.0000001201e-1)
    p = p * x * x + x + np.float32(1)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@register_jitable
def _exp64(x: Any) -> Any:
    # Taylor's polynomial on [-log 2 / 2, log 2 / 2]: thirteen terms are exact to rounding.
    x = min(max(x, -708.39), 709.43)
    n = np.floor(x * 1.44269504088896341 + 0.5)
    x = x - n * 6.93145751953125e-1
    x = x - n * 1.42860682030941723212e-6
    p = 1 / 6227020800
    p = p * x + 1 / 479001600
    p = p * x + 1 / 39916800
    p = p * x + 1 / 3628800
    p = p * x + 1 / 362880
    p = p * x + 1 / 40320
    p = p * x + 1 / 5040
    p = p * x + 1 / 720
    p = p * x + 1 / 120
    p = p * x + 1 / 24
    p = p * x + 1 / 6
    p = p * x + 0.5
    p = p * x * x + x + 1.0
    return p * np.int64((np.int64(n) + 1023) << 52).view(np.float64)


def _tanh(x: Any) -> Any:
    raise NotImplementedError


@numba.extending.overload(_tanh, inline="never")
def _tanh_of_type(x: Any) -> Any:
    """The hyperbolic tangent, from operations that a compiler makes vectors of."""
    if x == types.float32:
        return _tanh32
    return _tanh64


@register_jitable
def _tanh32(x: Any) -> Any:
    # Cephes' tanhf: a polynomial near zero, where an exponential would cancel.
    z = x * x
    p = np.float32(-5.70498872745e-3)
    p = p * z + np.float32(2.06390887954e-2)
    p = p * z + np.float32(-5.37397155531e-2)
    p = p * z + np.float32(1.33314422036e-1)
    p = p * z + np.float32(-3.33332819422e-1)
    near = p * z * x + x
    one = np.float32(1)
    far = one - np.float32(2) / (_exp32(x + x) + one)
    return near if abs(x) < np.float32(0.625) else far


@register_jitable
def _tanh64(x: Any) -> Any:
    z = x * x
    p = -9.64399179425052238628e-1
    p = p * z - 9.92877231001918586564e1
    p = p * z - 1.61468768441708447952e3
    q = z + 1.12811678491632931402e2
    q = q * z + 2.23548839060100448583e3
    q = q * z + 4.84406305325125486048e3
    near = x * z * (p / q) + x
    far = 1.0 - 2.0 / (_exp64(x + x) + 1.0)
    return near if abs(x) < 0.625 else far


@jit
def activate(code: int, parameter: float, total: Any) -> None:
    """Replaces sums by their activations."""
    one = total.dtype.type(1)
    zero = total.dtype.type(0)
    a = total.dtype.type(parameter)
    if code == Activation.RELU:
        for j in range(total.size):
            total[j] = max(total[j], zero)
    elif code == Activation.LEAKY_RELU:
        for j in range(total.size):
            total[j] = total[j] if total[j] > zero else a * total[j]
    elif code == Activation.SILU:
        for j in range(total.size):
            total[j] = total[j] / (one + _exp(-total[j]))
    elif code == Activation.SIGMOID:
        for j in range(total.size):
            total[j] = one / (one + _exp(-total[j]))
    elif code == Activation.TANH:
        for j in range(total.size):
            total[j] = _tanh(total[j])
    elif code == Activation.ELU:
        for j in range(total.size):
            # exp(t) - 1 = 2 h / (1 - h), h = tanh(t / 2), does not cancel near zero.
            half = _tanh(min(total[j], zero) / (one + one))
            total[j] = total[j] if total[j] > zero else a * (half + half) / (one - half)
    elif code == Activation.SOFTPLUS:
        for j in range(total.size):
            t = total[j]
            total[j] = t if t > 20 else math.log1p(math.exp(t))
    else:
        for j in range(total.size):
            t = total[j]
            total[j] = t * (one + math.erf(t * total.dtype.type(math.sqrt(0.5)))) / (one + one)


@jit
def slope(code: int, parameter: float, total: Any, activation: Any, gradient: Any) -> None:
    """Multiplies gradients with a'(total); `activation` is a(total)."""
    one = total.dtype.type(1)
    zero = total.dtype.type(0)
    a = total.dtype.type(parameter)
    if code == Activation.RELU:
        for j in range(total.size):
            gradient[j] = gradient[j] if activation[j] > zero else zero
    elif code == Activation.LEAKY_RELU:
        for j in range(total.size):
            gradient[j] = gradient[j] if total[j] > zero else a * gradient[j]
    elif code == Activation.SILU:
        for j in range(total.size):
            s = one / (one + _exp(-total[j]))
            gradient[j] *= s * (one + total[j] * (one - s))
    elif code == Activation.SIGMOID:
        for j in range(total.size):
            gradient[j] *= activation[j] * (one - activation[j])
    elif code == Activation.TANH:
        for j in range(total.size):
            gradient[j] *= one - activation[j] * activation[j]
    elif code == Activation.ELU:
        for j in range(total.size):
            gradient[j] = gradient[j] if total[j] > zero else gradient[j] * (activation[j] + a)
    elif code == Activation.SOFTPLUS:
        for j in range(total.size):
            gradient[j] = gradient[j] if total[j] > 20 else gradient[j] / (one + _exp(-total[j]))
    else:
        half = total.dtype.type(0.5)
        density = total.dtype.type(math.sqrt(0.5 / math.pi))
        for j in range(total.size):
            t = total[j]
            below = half * (one + math.erf(t * total.dtype.type(math.sqrt(0.5))))
            gradient[j] *= below + t * density * _exp(-half * t * t)


@jit
def invert(code: int, phi: Any, parameters: Any, x: Any, ladj: Any) -> None:
    """Inverts a map in place, from x, the latent, to the data, and adds to the inverse's ladj.

    The rows of phi are the parameters of a feature, `parameters` what the map takes beside them.
    """
    if code == Map.AFFINE:
        _invert_affine(phi[0], phi[1], parameters[0], x, ladj)
    else:
        _invert_spline(phi, parameters, x, ladj)


@jit
def _invert_affine(shift: Any, log_scale: Any, bound: float, x: Any, ladj: Any) -> None:
    """Inverts z = x exp(log_scale) + shift in place, and adds to the ladj of the inverse."""
    limit = x.dtype.type(bound)
    for j in range(x.size):
        scale = min(max(log_scale[j], -limit), limit)
        x[j] = (x[j] - shift[j]) * _exp(-scale)
        ladj[j] -= scale


@jit
def _invert_spline(phi: Any, parameters: Any, x: Any, ladj: Any) -> None:
    """Inverts a rational-quadratic spline in place; see `MonotonicRQSTransform`.

    The rows of phi are the unconstrained widths, heights and slopes; the parameters are the bound,
    the logarithm of the smallest slope, and the number of bins.
    """
    one = x.dtype.type(1)
    two = x.dtype.type(2)
    bound = parameters[0]
    limit = x.dtype.type(-parameters[1])
    bins = int(parameters[2])
    sizes = np.empty((2 * bins, x.size), x.dtype)
    totals = np.zeros((2, x.size))
    for k in range(2 * bins):
        for j in range(x.size):
            sizes[k, j] = _exp(phi[k, j] / (one + abs(two * phi[k, j] / limit)))
            totals[k // bins, j] += sizes[k, j]
    # Knots are sums of shares, in double precision, and nothing is subtracted that may cancel.
    for j in range(x.size):
        y = x[j]
        before = above = 0.0
        done = y < -bound
        for k in range(bins):
            if done:
                break
            share, rise = sizes[k, j] / totals[0, j], sizes[bins + k, j] / totals[1, j]
            y0 = bound * (2 * above - 1)
            above += rise
            if y < bound * (2 * above - 1):
                done = True
                d0 = d1 = one
                if k > 0:
                    d = phi[2 * bins + k - 1, j]
                    d0 = math.exp(d / (one + abs(d / limit)))
                if k < bins - 1:
                    d = phi[2 * bins + k, j]
                    d1 = math.exp(d / (one + abs(d / limit)))
                s = rise / share
                part = min(max((y - y0) / (2 * bound * rise), 0.0), 1.0)
                low, high = two * s * part, two * s * (one - part)
                u = d1 * part - d0 * (one - part)
                root = abs(u) + math.sqrt(u * u + low * high)
                left, right = (root, high) if u > 0 else (low, root)
                xi, rest = left / (left + right), right / (left + right)
                both = xi * rest
                below = s * (xi * xi + rest * rest) + (d0 + d1) * both
                steep = d1 * xi * xi + two * s * both + d0 * rest * rest
                x[j] = bound * (2 * before - 1) + xi * 2 * bound * share
                ladj[j] -= math.log(steep) + two * math.log(s / below)
            before += share
