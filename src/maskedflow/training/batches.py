"""Mini-batches: which rows, in which order, in which dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from maskedflow.data import Split, StreamedSplit
from maskedflow.transforms import Narrow

from .randomness import derive_seed

Training = Split | StreamedSplit
"""Training rows: in memory, or on disk."""


def check_finite(split: Split, name: str) -> None:
    """Refuses a split without rows that count, or with a number that is nan or infinite."""
    if len(split) == 0:
        raise ValueError(f"{name}: expected at least one row, got none")
    if split.weight is not None and not split.weight.any():
        raise ValueError(f"{name}.weight: expected one above 0 at least, got 0 in every row")
    if split.checked:
        return
    for part, values in (("x", split.x), ("context", split.context)):
        if values is not None and not values.isfinite().all():
            row, *inner = place = (~values.isfinite()).nonzero()[0].tolist()
            where = f"row {row}" + (f", column {inner[-1]}" if inner else "")
            where += f", step {inner[0]}" if len(inner) == 2 else ""
            where = where if len(inner) < 3 else f"row {row} at {inner}"
            raise ValueError(
                f"{name}.{part}: expected finite numbers, got {values[*place].item()} in {where}"
            )


def in_memory(train: Training) -> Split:
    """The training rows, or the sample of them that is in memory."""
    return train.sample if isinstance(train, StreamedSplit) else train


def order_of(rows: int, seed: int, epoch: int) -> Tensor:
    """The order of the rows of an epoch."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    return torch.randperm(rows, generator=generator)


def shuffled(
    train: Training, bounds: Sequence[tuple[int, int]], seed: int, epoch: int
) -> Iterator[tuple[Tensor, Split]]:
    """An epoch's mini-batches, each with the numbers of its rows: all, or those that are left."""
    if isinstance(train, StreamedSplit):
        yield from train.batches(bounds, derive_seed(seed, epoch))
        return
    order = order_of(len(train), seed, epoch)
    for start, end in bounds:
        rows = order[start:end]
        yield rows, train[rows]


def bounds(rows: int, batch_size: int, merge: bool) -> list[tuple[int, int]]:
    """First and last position of each mini-batch, the last one smaller if need be.

    With `merge` a last batch of at most half the size joins the one before it: batch norm can do
    nothing with the statistics of a few rows. A single row joins it in any case.

    Example:
        >>> bounds(10, 4, merge=False), bounds(9, 4, merge=False)
        ([(0, 4), (4, 8), (8, 10)], [(0, 4), (4, 9)])
        >>> bounds(10, 4, merge=True)
        [(0, 4), (4, 10)]
    """
    starts = list(range(0, rows, batch_size))
    few = max(batch_size // 2, 1) if merge else 1
    if batch_size > 1 and len(starts) > 1 and rows - starts[-1] <= few:
        starts.pop()
    return list(zip(starts, [*starts[1:], rows], strict=True))


def take(
    split: Split, rows: slice | Tensor, like: Tensor, whole: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Some rows and their contexts, in the dtype and on the device of `like`.

    If `whole`, contexts of integers stay integers.
    """
    part = split[rows]
    c = part.context
    if c is not None:
        c = c.to(like.device) if whole else c.to(like)
    return part.x.to(like), c


def weight_of(flow: nn.Module) -> Tensor:
    """A parameter (or buffer), which has the flow's dtype and device."""
    for tensor in chain(flow.parameters(), flow.buffers()):
        if tensor.is_floating_point():
            return tensor
    raise ValueError("flow: expected a module with a floating-point parameter or buffer")


def input_like(flow: nn.Module) -> Tensor:
    """An empty tensor with the dtype and device of input: float64 if it is to be narrowed first."""
    wide = any(isinstance(module, Narrow) for module in flow.modules())
    return weight_of(flow).new_empty((), dtype=torch.float64 if wide else None)


def largest(batch: Split, rows: Tensor) -> str:
    """Says where the largest number of a batch is: the first thing to look at if it fails."""
    x = batch.x.double().abs().flatten(1)
    row, column = divmod(int(x.argmax()), x.shape[1])
    return (
        f"the batch's largest |x| is {x[row, column].item():g}, in training row "
        f"{int(rows[row])}, column {column}"
    )
