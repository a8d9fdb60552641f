"""Independent parts of a search side by side: one a thread, or by other means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

Spread = Callable[[Sequence[Callable[[], Any]]], list[Any]]
"""Makes calls, which can be pickled as what they return, and gives what each of them does."""

_SPREAD: ContextVar[Spread | None] = ContextVar("_SPREAD", default=None)


@contextmanager
def spread_by(spread: Spread) -> Iterator[None]:
    """Has the calls of searches made by other means than threads, such as other machines."""
    token = _SPREAD.set(spread)
    try:
        yield
    finally:
        _SPREAD.reset(token)


def by_one_thread(call: Callable[[], Result]) -> Result:
    """Makes a call that computes with one thread, wherever it is made.

    Products of matrices, unlike the programs of flows, depend on the number in their last bits.

    Example:
        >>> by_one_thread(torch.get_num_threads)
        1
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return call()
    finally:
        torch.set_num_threads(threads)


def together(
    calls: Sequence[Callable[[], Result]], stop: Callable[[], None] = lambda: None
) -> list[Result]:
    """Makes calls, as many at once as torch has threads, and returns what each of them does.

    Each computes with one thread then: small trainings gain nothing from more. So they must draw
    nothing from torch's own generator, which all would share; it is put back afterwards to where it
    was. If one fails, or somebody interrupts, the calls that wait are not made, and `stop` ends
    those that run.
    """
    spread = _SPREAD.get()
    if spread is not None and len(calls) > 1:
        return spread(calls)
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
