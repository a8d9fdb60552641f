"""Elementary functions from operations that a compiler makes vectors of; libm's are scalar."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import register_jitable

#: A call would keep a loop from becoming vectors, and so would leaving it to the compiler.
inlined: Any = register_jitable(forceinline=True)


def exp(x: Any) -> Any:
    """The exponential, up to near the largest number, and down to near the smallest."""
    raise NotImplementedError


@numba.extending.overload(exp, jit_options={"forceinline": True})
def _exp_of_type(x: Any) -> Any:
    if x == types.float32:
        return _exp32
    return _exp64


@inlined
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


@inlined
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


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    raise NotImplementedError


@numba.extending.overload(tanh, jit_options={"forceinline": True})
def _tanh_of_type(x: Any) -> Any:
    if x == types.float32:
        return _tanh32
    return _tanh64


@inlined
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


@inlined
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


def log(x: Any) -> Any:
    """The natural logarithm: minus infinity at zero, and NaN below."""
    raise NotImplementedError


@numba.extending.overload(log, jit_options={"forceinline": True})
def _log_of_type(x: Any) -> Any:
    if x == types.float32:
        return _log32
    return _log64


@inlined
def _log32(x: Any) -> Any:
    # FreeBSD's logf: x = 2^n (1 + f) with 1 + f around one, then a series in f / (2 + f).
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    small = x < np.float32(1.17549435e-38)
    y = np.float32(x * (np.float32(2**25) if small else one))
    bits = np.int32(y.view(np.int32) + np.int32(0x3F800000 - 0x3F3504F3))
    n = np.float32(np.int32((bits >> np.int32(23)) - np.int32(127)))
    n = n - np.float32(25) if small else n
    mantissa = np.int32((bits & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3))
    f = mantissa.view(np.float32) - one
    s = f / (np.float32(2) + f)
    z = s * s
    p = np.float32(0.24279078841)
    p = p * z + np.float32(0.28498786688)
    p = p * z + np.float32(0.40000972152)
    p = p * z + np.float32(0.66666662693)
    square = half * f * f
    low = s * (square + p * z) + n * np.float32(9.0580006145e-6)
    result = (low - square) + f + n * np.float32(6.9313812256e-1)
    result = x if x == np.float32(np.inf) else result
    result = np.float32(-np.inf) if x == zero else result
    return result if x >= zero else np.float32(np.nan)


@inlined
def _log64(x: Any) -> Any:
    small = x < 2.2250738585072014e-308
    y = np.float64(x * (2.0**54 if small else 1.0))
    bits = y.view(np.int64) + np.int64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
    n = np.float64((bits >> np.int64(52)) - np.int64(1023))
    n = n - 54.0 if small else n
    mantissa = np.int64((bits & np.int64(0x000FFFFFFFFFFFFF)) + np.int64(0x3FE6A09E667F3BCD))
    f = mantissa.view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    p = 1.479819860511658591e-1
    p = p * z + 1.531383769920937332e-1
    p = p * z + 1.818357216161805012e-1
    p = p * z + 2.222219843214978396e-1
    p = p * z + 2.857142874366239149e-1
    p = p * z + 3.999999999940941908e-1
    p = p * z + 6.666666666666735130e-1
    square = 0.5 * f * f
    low = s * (square + p * z) + n * 1.90821492927058770002e-10
    result: Any = (low - square) + f + n * 6.93147180369123816490e-1
    result = x if x == np.inf else result
    result = -np.inf if x == 0.0 else result
    return result if x >= 0.0 else np.nan


@inlined
def erfcx(x: Any) -> Any:
    """exp(x^2) erfc(x) of numbers from zero on, in double precision."""
    # Cody's CALERF: the error function itself near zero, and rational functions for what is scaled.
    z = x * x
    p = 1.85777706184603153e-1
    p = p * z + 3.16112374387056560e0
    p = p * z + 1.13864154151050156e2
    p = p * z + 3.77485237685302021e2
    p = p * z + 3.20937758913846947e3
    q = z + 2.36012909523441209e1
    q = q * z + 2.44024637934444173e2
    q = q * z + 1.28261652607737228e3
    q = q * z + 2.84423683343917062e3
    near = (1.0 - x * p / q) * _exp64(min(z, 1.0))
    y = min(x, 4.0)
    p = 2.15311535474403846e-8
    p = p * y + 5.64188496988670089e-1
    p = p * y + 8.88314979438837594e0
    p = p * y + 6.61191906371416295e1
    p = p * y + 2.98635138197400131e2
    p = p * y + 8.81952221241769090e2
    p = p * y + 1.71204761263407058e3
    p = p * y + 2.05107837782607147e3
    p = p * y + 1.23033935479799725e3
    q = y + 1.57449261107098347e1
    q = q * y + 1.17693950891312499e2
    q = q * y + 5.37181101862009858e2
    q = q * y + 1.62138957456669019e3
    q = q * y + 3.29079923573345963e3
    q = q * y + 4.36261909014324716e3
    q = q * y + 3.43936767414372164e3
    q = q * y + 1.23033935480374942e3
    middle = p / q
    z = 1.0 / z
    p = 1.63153871373020978e-2
    p = p * z + 3.05326634961232344e-1
    p = p * z + 3.60344899949804439e-1
    p = p * z + 1.25781726111229246e-1
    p = p * z + 1.60837851487422766e-2
    p = p * z + 6.58749161529837803e-4
    q = z + 2.56852019228982242e0
    q = q * z + 1.87295284992346725e0
    q = q * z + 5.27905102951428412e-1
    q = q * z + 6.05183413124413191e-2
    q = q * z + 2.33520497626869185e-3
    far = (5.6418958354775628695e-1 - z * p / q) / x
    far = far if x > 4.0 else middle
    return near if x <= 0.46875 else far
