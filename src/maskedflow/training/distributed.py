"""The processes that train a flow together, as the loop sees them."""

from __future__ import annotations

import mmap
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskedflow.transforms.part import Part

WORTH_SHARING = 2**16
"""Numbers from which on memory that all processes see is faster than messages."""

CHUNK = 2**15
"""Numbers that are added up at a time: they stay in a cache."""

Batches = Sequence[tuple[slice, Part | None]]
"""The rows of batches that are here, and what they are a part of, None if they are all."""


class Ranks:
    """The processes of a group of :mod:`torch.distributed`, each with all rows and all weights.

    Every process takes its part of every batch, adds up gradients with the others, and then takes
    the same step. What depends on a clock, or on a user, is decided by the first.

    Args:
        device: Where tensors are that go from one to another.
        alone: Whether this one trains by itself, whatever group there is.

    Example:
        >>> ranks = Ranks()  # no group has been initialised
        >>> ranks.size, ranks.is_first, ranks.share(0, 5)
        (1, True, (0, 5))
    """

    def __init__(self, device: torch.device | str = "cpu", *, alone: bool = False) -> None:
        together = not alone and distributed.is_available() and distributed.is_initialized()
        self.device = torch.device(device)
        self.rank = distributed.get_rank() if together else 0
        self.size = distributed.get_world_size() if together else 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that decides, writes and talks."""
        return self.rank == 0

    def share(self, start: int, end: int) -> tuple[int, int]:
        """This process's part of a range, none if there are more processes than numbers."""
        first, last = (
            start - (start - end) * rank // self.size for rank in (self.rank, self.rank + 1)
        )
        return first, last

    def part(self, start: int, end: int) -> Part | None:
        """What this process's rows of a batch are a part of; None if they are all."""
        if self.size == 1:
            return None
        return Part(self.share(start, end)[0] - start, end - start, self.summed)

    def batches(self, rows: int, batch_size: int) -> Batches:
        """This process's rows of each batch of so many, and what these are a part of."""
        bounds = [(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]
        return [(slice(*self.share(*each)), self.part(*each)) for each in bounds]

    def sum_(self, numbers: Tensor) -> Tensor:
        """Replaces numbers by their sums over all processes."""
        if self.size > 1:
            sent = numbers.to(self.device)
            with _staying_together():
                distributed.all_reduce(sent)
            if sent is not numbers:
                numbers.copy_(sent)
        return numbers

    def summed(self, numbers: Tensor) -> Tensor:
        """The sums over all processes, with gradients."""
        total: Tensor = _Summed.apply(self, numbers)  # type: ignore[no-untyped-call]
        return total

    def total(self, number: float) -> float:
        """The sum of a number over all processes."""
        return float(self.sum_(torch.tensor(number, dtype=torch.float64, device=self.device)))

    def wait(self) -> None:
        """Waits until all processes are here."""
        self.total(0)

    def decide(self, number: int) -> int:
        """What the first process says, whatever this one does."""
        if self.size == 1:
            return number
        said = torch.tensor(int(number), device=self.device)
        self.same_([said])
        return int(said)

    def same_(self, tensors: Iterable[Tensor]) -> None:
        """Replaces tensors by those of the first process."""
        if self.size > 1:
            with _staying_together(), torch.no_grad():
                for one in tensors:
                    distributed.broadcast(one, 0)

    def scattered(self, values: Sequence[Any] | None) -> Any:
        """This process's of as many values as there are processes, which the first one has.

        They are pickled, as messages to others that run the same program.
        """
        mine: list[Any] = [None]
        with _staying_together():
            distributed.scatter_object_list(mine, None if values is None else [*values])
        return mine[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in the first one; none in the others."""
        values: list[Any] | None = [None] * self.size if self.is_first else None
        with _staying_together():
            distributed.gather_object(value, values)
        return values or []

    def agree(self, what: str) -> None:
        """Compares what all processes are to do.

        Raises:
            ValueError: If this one is to do something else than the first.
        """
        number = zlib.crc32(what.encode())
        if self.decide(number) != number:
            raise ValueError(
                f"process {self.rank}: expected the rows, the settings and the flow of process 0, "
                f"got {what}"
            )

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Has the first process go first, and the others after it."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()


ALONE = Ranks(alone=True)
"""This process by itself."""


class GradientSum:
    """The gradient of all parameters and, behind it, the loss: one vector that is added up.

    Where all processes are on one machine, it is in memory that all of them see, and each adds up
    its share of the numbers: messages between them would take as long as a small step.

    Args:
        ranks: The processes.
        count: How many parameters there are.
        like: A tensor of their dtype and on their device.
    """

    def __init__(self, ranks: Ranks, count: int, like: Tensor) -> None:
        self._ranks = ranks
        seen = count >= WORTH_SHARING and like.is_cpu
        self._rows = _seen_by_all(ranks, count + 1, like.dtype) if seen else None
        self.vector = like.new_empty(count + 1) if self._rows is None else self._rows[ranks.rank]
        self.vector.zero_()

    def sum_(self) -> None:
        """Replaces the vector by its sum over all processes."""
        if self._rows is None:
            self._ranks.sum_(self.vector)
            return
        first, last = self._ranks.share(0, len(self.vector))
        self._ranks.wait()
        for piece in self._rows[:, first:last].split(CHUNK, dim=1):
            piece.copy_(piece.sum(dim=0))
        self._ranks.wait()

    def take(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
        """Adds up the gradients that torch has left; returns the sum of the losses."""
        found = [one.grad for one in parameters if one.grad is not None]
        sizes = [one.numel() for one in found]
        places = self.vector[: sum(sizes)].split(sizes)
        for place, gradient in zip(places, found, strict=True):
            place.copy_(gradient.flatten())
        self.vector[-1] = loss
        self.sum_()
        for place, gradient in zip(places, found, strict=True):
            gradient.copy_(place.view_as(gradient))
        return self.vector[-1].clone()


def begin_together(
    ranks: Ranks, flow: nn.Module, parameters: Sequence[nn.Parameter], told: str
) -> GradientSum | None:
    """Has all processes begin with the first one's weights; None if there is but one.

    Args:
        ranks: The processes.
        flow: What they train.
        parameters: Those that are trained.
        told: What they train on, and how.

    Raises:
        ValueError: If that is not the same for all, or a layer of torch's normalises the rows of
            one process only.
    """
    if ranks.size == 1:
        return None
    for module in flow.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            raise ValueError(
                f"flow: {type(module).__name__} normalises by the rows of one process, expected a "
                "norm of each row, such as torch.nn.LayerNorm, or torch.nn.SyncBatchNorm"
            )
    count = sum(one.numel() for one in parameters)
    ranks.agree(f"{count} parameters, {told}")
    ranks.same_([*flow.parameters(), *flow.buffers()])
    return GradientSum(ranks, count, parameters[0].detach())


class _Summed(torch.autograd.Function):
    """A loss is a sum over processes too: slopes by a sum are added up as it was."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, numbers: Tensor) -> Tensor:
        ctx.ranks = ranks
        return ranks.sum_(numbers.clone())

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[None, Tensor]:
        return None, ctx.ranks.sum_(slopes.contiguous().clone())


@contextmanager
def _staying_together() -> Iterator[None]:
    """Says in one line that a process is gone."""
    try:
        yield
    except RuntimeError as error:  # torch has no type of its own for it
        why = str(error).partition("] ")[2].partition(". ")[0]  # after a place in torch's source
        raise ConnectionError(
            "another process of the training has ended; it can be resumed from its last checkpoint"
            + (f" ({why})" if why else "")
        ) from error


def _seen_by_all(ranks: Ranks, count: int, dtype: torch.dtype) -> Tensor | None:
    """Memory with a row for each process; None if they are on several machines, or not on Linux.

    The memory is a file without a name, which others find among those that the first process has
    open: it is gone with the last of them, however they end.
    """
    size = ranks.size * count * dtype.itemsize
    file, token = -1, ranks.decide(secrets.randbits(62)).to_bytes(8)
    if ranks.is_first and hasattr(os, "memfd_create"):
        file = os.memfd_create("gradients")
        os.ftruncate(file, size)
        os.pwrite(file, token, 0)
    process, number = ranks.decide(os.getpid()), ranks.decide(file)
    if not ranks.is_first:
        with suppress(OSError):
            file = os.open(f"/proc/{process}/fd/{number}", os.O_RDWR)
    seen = file >= 0 and os.fstat(file).st_size == size and os.pread(file, 8, 0) == token
    rows = None
    if ranks.total(seen) == ranks.size:
        rows = torch.frombuffer(mmap.mmap(file, size), dtype=dtype).view(ranks.size, count)
    if file >= 0:
        os.close(file)
    return rows
