"""Independent parts of a search side by side, one a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


def together(
    calls: Sequence[Callable[[], Result]], stop: Callable[[], None] = lambda: None
) -> list[Result]:
    """Makes calls, as many at once as torch has threads, and returns what each of them does.

    Each computes with one thread then: small trainings gain nothing from more. So they must draw
    nothing from torch's own generator, which all would share; it is put back afterwards to where it
    was. If one fails, or somebody interrupts, the calls that wait are not made, and `stop` ends
    those that run.
    """
    threads = torch.get_num_threads()
    if threads < 2 or len(calls) < 2:
        return [call() for call in calls]
    torch.set_num_threads(1)  # of this thread, and of those that start from now on
    try:
        with torch.random.fork_rng([]), ThreadPoolExecutor(min(threads, len(calls))) as pool:
            futures = [pool.submit(call) for call in calls]
            try:
                return [future.result() for future in futures]
            except BaseException:
                stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
