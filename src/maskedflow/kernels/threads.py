"""Runs a compiled function on the threads that torch has already."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["on_all_threads"]


def _team() -> Callable[..., None] | None:
    """OpenMP's own way to start a team, as a compiler calls it; None where torch has another."""
    start = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if os.name == "posix" else None
    if start is not None:
        start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        start.restype = None
    return start


# Threads of our own would compete with torch's, which wait for the next product by spinning. The
# same team takes over at once, and there is no second pool.
_start = _team()
_call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _forget_team() -> None:
    global _start  # noqa: PLW0603 - a team does not survive a fork, and waiting for it never ends
    _start = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_team)


def on_all_threads(function: int, job: Any, most: int) -> None:
    """Calls a function on as many threads as torch uses, without Python's lock, and waits.

    Args:
        function: The address of a function of a job's address, which the threads call together.
        job: The integers of the job, the last of which becomes the number of threads.
        most: The number of threads that find work.
    """
    threads = 1 if _start is None else max(1, min(torch.get_num_threads(), most))
    job[-1] = threads
    if threads > 1 and _start is not None:
        _start(function, job.ctypes.data, threads, 0)
    else:
        _call(function)(job.ctypes.data)
