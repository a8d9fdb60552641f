"""The compiled functions, each compiled when it is first asked for."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import activations, maps, products, run, steps
from .cache import compile_cached

#: Functions of the address of what they work on, and of a number of its type.
FUNCTIONS: dict[str, Callable[[int, Any], None]] = {
    "clear": run.clear,
    "product": products.product,
    "tall": products.tall,
    "oblong": products.oblong,
    "square": products.square,
    "panels": run.run_panels,
    "gradients": run.sum_gradients,
    "measure": steps.measure,
    "update": steps.update,
    "begin": steps.begin,
    "tally": steps.tally,
    "judge": steps.judge,
    "steps": steps.take_steps,
    **activations.FUNCTIONS,
    **maps.FUNCTIONS,
}

#: Held while something is compiled, and while a process forks: a child could never take a lock
#: whose holder has stayed behind.
_compiling = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_compiling.acquire,
        after_in_child=_compiling.release,
        after_in_parent=_compiling.release,
    )


@cache
def entry(name: str, size: int) -> int:
    """The address of a compiled function of an address, for numbers of `size` bytes."""
    with _compiling:
        return _address(name, size)


@cache
def _address(name: str, size: int) -> int:
    function, like = FUNCTIONS[name], np.float32(0) if size == 4 else np.float64(0)

    def compiled(address: int) -> None:
        function(address, like)

    return compile_cached(compiled, f"{name}{8 * size}", _stamp())


@cache
def _stamp() -> str:
    """Stands for all that functions are made from."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
