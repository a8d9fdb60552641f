"""Layers that training rows set before the first step."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from .lazy import LazyTransform


class Block(NamedTuple):
    """Some rows as a layer gets them, their contexts, and how much each row counts."""

    x: Tensor
    c: Tensor | None
    weight: Tensor


class WaitingTransform(LazyTransform):
    """A lazy transform that may wait for rows, see :func:`maskedflow.training.start_at`."""

    #: Whether rows have set where it begins, part of its state; None if it never waits for any.
    initialized: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initialized", None)

    @property
    def enough(self) -> int | None:
        """How many rows it wants; all of them if None."""
        return None

    @property
    def is_waiting(self) -> bool:
        """Whether training rows are still to set where it begins."""
        return self.initialized is not None and not self.initialized

    @abc.abstractmethod
    def start(self, blocks: Iterable[Block]) -> None:
        """Sets where it begins, by rows that come in blocks."""


def gathered(blocks: Iterable[Block]) -> tuple[Tensor, Tensor]:
    """All rows of some blocks, and their weights."""
    some = list(blocks)
    return torch.cat([block.x for block in some]), torch.cat([block.weight for block in some])
