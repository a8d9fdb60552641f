"""Univariate maps, on rows of a panel: one number of each of its samples.

A map is a module with three functions, which work in place. The rows of `phi` are the parameters
of a feature, `constants` the numbers that the map takes beside them; x and ladj are rows. Rows are
as long as a panel's, and no two of the arrays overlap.

- `evaluate(phi, constants, x, ladj)` replaces data x by their latents z = f(x), and adds log f'(x).
- `differentiate(phi, constants, x, ladj, dphi, dx)` has the gradients by z in `dx`, those by the
  log-slope in `ladj`, and the data in x. It replaces dx by the gradients by x, and writes those by
  the parameters to `dphi`.
- `invert(phi, constants, x, ladj)` replaces latents by their data, and adds the inverse's ladj.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from numba import carray  # type: ignore[attr-defined]

from maskedflow.kernels import Map
from maskedflow.kernels.tile import PANEL_BYTES, jit_as, pointer, size_of

from . import additive, affine, gaussian, linear, mixture, normalize, scale, spline, standardize

#: The most constants of a map.
MOST_CONSTANTS = 8
#: The maps that the kernel knows.
TABLE: dict[Map, ModuleType] = {
    Map.AFFINE: affine,
    Map.GAUSSIAN: gaussian,
    Map.ADDITIVE: additive,
    Map.SPLINE: spline,
    Map.MIXTURE: mixture,
    Map.SCALE: scale,
    Map.STANDARDIZE: standardize,
    Map.NORMALIZE: normalize,
    Map.LINEAR: linear,
}


def _in_place(function: Any) -> Callable[[int, Any], None]:
    """The same of an address.

    There are the address of the parameters' first row, their number, and the addresses of the
    constants, of x, and of the ladj.
    """

    def run(address: int, like: Any) -> None:
        arguments = carray(pointer(address, 0), (5,))
        width = PANEL_BYTES // size_of(like)
        phi = carray(pointer(arguments[0], like), (arguments[1], width))
        constants = carray(pointer(arguments[2], 0.0), (MOST_CONSTANTS,))
        x = carray(pointer(arguments[3], like), (width,))
        ladj = carray(pointer(arguments[4], like), (width,))
        function(phi, constants, x, ladj)

    return jit_as(f"run_{function.py_func.__module__}_{function.py_func.__name__}", run)  # type: ignore[no-any-return]


def _gradient(function: Any) -> Callable[[int, Any], None]:
    """Alike, and then the addresses of the gradients by the parameters and by x."""

    def run(address: int, like: Any) -> None:
        arguments = carray(pointer(address, 0), (7,))
        width = PANEL_BYTES // size_of(like)
        phi = carray(pointer(arguments[0], like), (arguments[1], width))
        constants = carray(pointer(arguments[2], 0.0), (MOST_CONSTANTS,))
        x = carray(pointer(arguments[3], like), (width,))
        ladj = carray(pointer(arguments[4], like), (width,))
        dphi = carray(pointer(arguments[5], like), (arguments[1], width))
        dx = carray(pointer(arguments[6], like), (width,))
        function(phi, constants, x, ladj, dphi, dx)

    return jit_as(f"run_{function.py_func.__module__}_{function.py_func.__name__}", run)  # type: ignore[no-any-return]


#: The same by name, as `kernels.entries` compiles them.
FUNCTIONS = {
    f"{one.name.lower()}.{what}": adapt(getattr(module, what))
    for one, module in TABLE.items()
    for what, adapt in {
        "evaluate": _in_place,
        "differentiate": _gradient,
        "invert": _in_place,
    }.items()
}
