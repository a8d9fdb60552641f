"""Independent parts of a search side by side, one a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def together(call: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Calls a function of each item, as many at once as torch has threads.

    Each computes with one thread then: small trainings gain nothing from more. So the function
    must draw nothing from torch's own generator, which all would share; it is put back afterwards
    to where it was.
    """
    threads = torch.get_num_threads()
    if threads < 2 or len(items) < 2:
        return [call(item) for item in items]
    torch.set_num_threads(1)  # of this thread, and of those that start from now on
    try:
        with torch.random.fork_rng([]), ThreadPoolExecutor(min(threads, len(items))) as pool:
            futures = [pool.submit(call, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
