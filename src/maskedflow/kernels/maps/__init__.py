"""Univariate maps, on rows of a panel: one number of each of its samples.

A map is a module with three functions, which work in place. The rows of `phi` are the parameters
of a feature, `constants` the numbers that the map takes beside them; x and ladj are rows. No two of
the arrays overlap.

- `evaluate(phi, constants, x, ladj)` replaces data x by their latents z = f(x), and adds log f'(x).
- `differentiate(phi, constants, x, ladj, dphi, dx)` has the gradients by z in `dx`, those by the
  log-slope in `ladj`, and the data in x. It replaces dx by the gradients by x, and writes those by
  the parameters to `dphi`.
- `invert(phi, constants, x, ladj)` replaces latents by their data, and adds the inverse's ladj.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from maskedflow.kernels import Map
from maskedflow.kernels.tile import jit

from . import additive, affine, gaussian, mixture, spline

#: The maps that the kernel knows.
TABLE: dict[Map, ModuleType] = {
    Map.AFFINE: affine,
    Map.GAUSSIAN: gaussian,
    Map.ADDITIVE: additive,
    Map.SPLINE: spline,
    Map.MIXTURE: mixture,
}


def _dispatcher(name: str) -> Any:
    """A compiled function of a `Map` and of what each map's function of that name takes."""

    @jit
    def choose(code: int, *arguments: Any) -> None:
        pass

    for code, module in TABLE.items():
        if hasattr(module, name):
            choose = _or(int(code), getattr(module, name), choose)
    return choose


def _or(this: int, function: Any, rest: Any) -> Any:
    @jit
    def choose(code: int, *arguments: Any) -> None:
        if code == this:
            function(*arguments)
        else:
            rest(code, *arguments)

    return choose


evaluate = _dispatcher("evaluate")
differentiate = _dispatcher("differentiate")
invert = _dispatcher("invert")
