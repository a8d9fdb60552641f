"""Searches whose members are fitted by all processes of a group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from maskedflow.training import Ranks

from .together import by_one_thread, spread_by


@contextmanager
def searching(ranks: Ranks) -> Iterator[bool]:
    """Has all processes of a group fit members for the searches of the first one.

    The others fit what they are sent until the first leaves. A search finds the same density as in
    one process, bit for bit; what is done one after the other, trees and mixtures, is done by the
    first. Rows go to the others with each call, by messages.

    Args:
        ranks: The processes.

    Yields:
        Whether this process is the first: the one that searches.

    Raises:
        ConnectionError: If another process has ended.

    Example:
        >>> with searching(Ranks()) as searches:  # of one process
        ...     searches
        True
    """
    if ranks.size == 1:
        yield True
        return
    if not ranks.is_first:
        while (calls := ranks.scattered(None)) is not None:
            ranks.gathered(_made(calls))
        yield False
        return

    def spread(calls: Sequence[Callable[[], Any]]) -> list[Any]:
        mine = ranks.scattered([calls[rank :: ranks.size] for rank in range(ranks.size)])
        found: list[Any] = [None] * len(calls)
        for rank, some in enumerate(ranks.gathered(_made(mine))):
            if isinstance(some, Exception):
                raise some
            found[rank :: ranks.size] = some
        return found

    with spread_by(spread):
        try:
            yield True
        finally:
            with suppress(ConnectionError):  # of an interrupt, which all have heard
                ranks.scattered([None] * ranks.size)


def _made(calls: Sequence[Callable[[], Any]]) -> list[Any] | Exception:
    """What calls do, or why one failed: the others must hear of it."""
    try:
        return [by_one_thread(call) for call in calls]
    except Exception as error:  # whatever it is, the first process raises it
        return error
