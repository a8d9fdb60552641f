"""Drawing many rows from a flow, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from maskedflow.sources import Shard
from maskedflow.training.randomness import derive_seed

__all__ = ["ROWS", "sample_batches"]

ROWS = 1000
"""Rows drawn at once."""


def sample_batches(
    flow: nn.Module,
    n: int,
    context: Tensor | None = None,
    *,
    seed: int = 0,
    rows: int = ROWS,
    shard: Shard | None = None,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Draws `n` rows, or `n` rows for each context, in bounded memory.

    The draws of a block follow from the seed and the block's number, so that a piece of the rows
    can be drawn without those before it.

    Args:
        flow: A module whose call `flow(c)` gives a distribution with `sample`.
        n: The number of rows, or of rows for each context.
        context: One context a row, shape (m, context).
        seed: Seed of the draws; the same seed and `rows` give the same rows.
        rows: The most rows drawn at once.
        shard: Which piece of the rows to draw; all of them if None.

    Yields:
        Samples in the data's own units, shape (<= rows, features), and the context of each.

    Raises:
        ValueError: If `n` is less than 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1")
    total = n if context is None else n * len(context)
    first, last = (shard or Shard()).part(total, rows)
    generator = torch.Generator()
    with torch.no_grad():
        for start in range(first, last, rows):
            generator.manual_seed(derive_seed(seed, start // rows))
            block = torch.arange(start, min(start + rows, last))
            if context is None:
                yield flow().sample((len(block),), generator=generator), None
            else:
                c = context[block // n]
                yield flow(c).sample((), generator=generator), c
