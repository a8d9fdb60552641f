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

from numba.core import cgutils, types
from numba.extending import intrinsic

from maskedflow.kernels import Map
from maskedflow.kernels.tile import jit

from . import additive, affine, gaussian, mixture, spline

#: Untyped for mypy: compiled code calls these without the typing context.
_intrinsic: Any = intrinsic

#: The maps that the kernel knows.
TABLE: dict[Map, ModuleType] = {
    Map.AFFINE: affine,
    Map.GAUSSIAN: gaussian,
    Map.ADDITIVE: additive,
    Map.SPLINE: spline,
    Map.MIXTURE: mixture,
}


def _dispatcher(name: str) -> Any:
    """A compiled function of a `Map` and of what each map's function of that name takes.

    It branches once, in LLVM's own language: a chain of compiled functions, each a part of the one
    before, would be optimised once for each of them.
    """
    functions = {int(code): types.Dispatcher(getattr(one, name)) for code, one in TABLE.items()}

    @_intrinsic
    def choose(typingctx: Any, code: Any, arguments: Any) -> Any:
        called = {
            number: (function, typingctx.resolve_function_type(function, arguments.types, {}))
            for number, function in functions.items()
        }

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            code, packed = values
            unpacked = cgutils.unpack_tuple(builder, packed)
            done = builder.append_basic_block("done")
            switch = builder.switch(code, done)
            for number, (function, types_of_call) in called.items():
                with builder.goto_block(builder.append_basic_block(f"map{number}")):
                    switch.add_case(number, builder.block)
                    call = context.get_function(function, types_of_call)
                    call(builder, unpacked)
                    context.add_linking_libs(call.libs)
                    builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(code, arguments), codegen

    return choose


_evaluate, _differentiate, _invert = map(_dispatcher, ("evaluate", "differentiate", "invert"))


@jit
def evaluate(code: int, phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """`evaluate` of a map."""
    _evaluate(code, (phi, constants, x, ladj))


@jit
def differentiate(
    code: int, phi: Any, constants: Any, x: Any, ladj: Any, dphi: Any, dx: Any
) -> None:
    """`differentiate` of a map."""
    _differentiate(code, (phi, constants, x, ladj, dphi, dx))


@jit
def invert(code: int, phi: Any, constants: Any, x: Any, ladj: Any) -> None:
    """`invert` of a map."""
    _invert(code, (phi, constants, x, ladj))
