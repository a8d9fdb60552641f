"""Runs a compiled function on the threads that torch has already."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from threadpoolctl import threadpool_limits

#: The multiplications that are worth a thread: what one does while another wakes up, and back.
WORTH_A_THREAD = 2**25
#: How many times as long as threads have cost calls do without them.
PAUSE = 16
#: The seconds of shared calls after which one is timed alone again.
FRESH = 1.0
#: How much slower a call is taken to be than the fastest one, each time that one is timed.
FADE = 1.02


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
_call = cache(ctypes.CFUNCTYPE(None, ctypes.c_void_p))
#: The threads that compute at the moment, for all threads of Python.
_running = 0
_counting = threading.Lock()


def _stay_alone() -> None:
    """Has a forked child compute by itself: OpenMP would wait for threads that stayed behind."""
    global _start, _running, _counting
    _start, _running, _counting = None, 0, threading.Lock()
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="openmp")  # scikit-learn brings an OpenMP of its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stay_alone)


class Team:
    """Says how many threads calls of one kind should ask for.

    Where another process has a core, a thread may come when nothing is left to do, or be sent away
    in the middle of something, and all wait for it: milliseconds, for a tenth of one of work. So a
    call that took longer than one thread would have is followed by calls of one thread.
    """

    def __init__(self) -> None:
        self.pace = math.inf  # of one thread, in seconds for a multiplication
        self.alone = 0.0  # seconds for which calls do without threads
        self.shared = 0.0  # seconds since one did

    def size(self, work: int, most: int) -> int:
        """How many threads to ask for, of `most` that find any of so many multiplications."""
        if work < 2 * WORTH_A_THREAD or _start is None or self.pace == math.inf:
            return 1
        if self.alone > 0 or self.shared > FRESH:
            return 1
        return max(min(torch.get_num_threads() - _running, most, work // WORTH_A_THREAD), 1)

    def note(self, asked: int, work: int, seconds: float) -> None:
        """Takes note of how long a call took."""
        if asked == 1:
            self.pace = min(seconds / max(work, 1), FADE * self.pace)
            self.alone -= seconds
            self.shared = 0.0
        else:
            self.alone = PAUSE * (seconds - work * self.pace)
            self.shared += seconds


def run_on(threads: int, function: int, job: Any) -> None:
    """Calls a function together on some threads, without Python's lock, and waits.

    OpenMP may grant fewer than it is asked for, and be it one: inside of another team, or as its
    settings want it. So a function takes what there is to do piece by piece, until nothing is left,
    and counts on nobody else. It is given by its address, and takes that of the job's integers.
    """
    global _running  # noqa: PLW0603 - threads of Python share the cores, and know by this
    with _counting:
        _running += threads
    try:
        if threads > 1 and _start is not None:
            _start(function, job.ctypes.data, threads, 0)
        else:
            _call(function)(job.ctypes.data)
    finally:
        with _counting:
            _running -= threads
