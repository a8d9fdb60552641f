"""Runs a compiled function on the threads that torch has already."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from threadpoolctl import threadpool_limits

#: The multiplications that are worth a thread: a tenth of a millisecond or so. Threads that share
#: less gain little more than it takes to wake them.
WORTH_A_THREAD = 2**22
#: For how many calls at most a thread that came late is not asked for.
LONGEST_PAUSE = 1000


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


def _stay_alone() -> None:
    """Has a forked child compute by itself: OpenMP would wait for threads that stayed behind."""
    global _start  # noqa: PLW0603 - a child that wants torch's threads gets no more of ours
    _start = None
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="openmp")  # scikit-learn brings an OpenMP of its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stay_alone)


class Team:
    """Says how many threads to ask for.

    Where another process has a core, a thread may come when nothing is left to do, and all have
    waited for it, for a hundred times as long as their work took. Then the next calls do without
    it, the more of them the more often that happens.
    """

    def __init__(self) -> None:
        self.most = self.pause = self.calls_left = 0

    def size(self, work: int, most: int) -> int:
        """How many threads to ask for, of `most` that find any of so many multiplications."""
        wanted = min(torch.get_num_threads(), most, work // WORTH_A_THREAD)
        if _start is None or wanted < 2:
            return 1
        if wanted > self.most and self.calls_left > 0:
            self.calls_left -= 1
            return self.most
        return wanted

    def note(self, asked: int, busy: int) -> None:
        """Takes note of how many of the threads that were asked for found something to do."""
        if busy < asked:
            self.pause = min(2 * self.pause + 1, LONGEST_PAUSE)
            self.most, self.calls_left = busy, self.pause
        elif asked > self.most:
            self.pause = max(self.pause - 1, 0)


def run_on(threads: int, function: int, job: Any) -> None:
    """Calls a function together on some threads, without Python's lock, and waits.

    OpenMP may grant fewer than it is asked for, and be it one: inside of another team, or as its
    settings want it. So a function takes what there is to do piece by piece, until nothing is left,
    and counts on nobody else. It is given by its address, and takes that of the job's integers.
    """
    if threads > 1 and _start is not None:
        _start(function, job.ctypes.data, threads, 0)
    else:
        _call(function)(job.ctypes.data)
