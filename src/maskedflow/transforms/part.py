"""A batch that several processes share: what its rows here are a part of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor


class Part(NamedTuple):
    """The rows of a batch that are here, where others are elsewhere."""

    first: int
    """How many rows of the batch come before them."""
    batch: int
    """The rows of the whole batch."""
    sum: Callable[[Tensor], Tensor]
    """Adds up the tensors that all parts give, with gradients."""
    axis: int = 0
    """The axis of tensors along which rows are, where something is drawn for each of them."""


_PART: ContextVar[Part | None] = ContextVar("part", default=None)


@contextmanager
def part_of_batch(part: Part | None) -> Iterator[None]:
    """Says what rows are a part of meanwhile; of nothing if that is None.

    A context, as it concerns the batch as a whole: noise that is drawn for it, and its moments.
    """
    token = _PART.set(part)
    try:
        yield
    finally:
        _PART.reset(token)


def current_part() -> Part | None:
    """What the rows are a part of; None if they are all there are."""
    return _PART.get()
