"""The compiled functions that Python calls, each compiled when it is first asked for."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from .cache import compile_cached
from .run import clear, run_panels, sum_gradients
from .steps import measure, take_steps, update


def _clear32(address: int) -> None:
    clear(address, np.float32(0))


def _clear64(address: int) -> None:
    clear(address, np.float64(0))


def _panels32(address: int) -> None:
    run_panels(address, np.float32(0))


def _panels64(address: int) -> None:
    run_panels(address, np.float64(0))


def _gradients32(address: int) -> None:
    sum_gradients(address, np.float32(0))


def _gradients64(address: int) -> None:
    sum_gradients(address, np.float64(0))


def _measure32(address: int) -> None:
    measure(address, np.float32(0))


def _measure64(address: int) -> None:
    measure(address, np.float64(0))


def _update32(address: int) -> None:
    update(address, np.float32(0))


def _update64(address: int) -> None:
    update(address, np.float64(0))


def _steps32(address: int) -> None:
    take_steps(address, np.float32(0))


def _steps64(address: int) -> None:
    take_steps(address, np.float64(0))


_FUNCTIONS: dict[tuple[str, int], Callable[[int], None]] = {
    ("clear", 4): _clear32,
    ("clear", 8): _clear64,
    ("panels", 4): _panels32,
    ("panels", 8): _panels64,
    ("gradients", 4): _gradients32,
    ("gradients", 8): _gradients64,
    ("measure", 4): _measure32,
    ("measure", 8): _measure64,
    ("update", 4): _update32,
    ("update", 8): _update64,
    ("steps", 4): _steps32,
    ("steps", 8): _steps64,
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
    """The address of a compiled function of a job's address, for numbers of `size` bytes.

    "clear" sets the holes of a job to zero, "panels" runs its program, "gradients" sums up those of
    weights; "measure", "update" and "steps" are of `kernels.steps`.
    """
    with _compiling:
        return _address(name, size)


@cache
def _address(name: str, size: int) -> int:
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    stamp = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return compile_cached(_FUNCTIONS[name, size], stamp)
