"""Which rows go where: dealt at random, with copies of a row on the same side.

A Markov chain, a bootstrap or a weighted sample holds rows several times. If one copy trains and
another tests, a flow that has learnt its rows by heart looks best. Where columns take few values,
though, equal rows are no copies: each toss of a coin is a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .copies import copies
from .split import Array

Dealing = Literal["rows", "values"]
"""Whether each row is dealt by itself, as in earlier versions, or copies go to one side."""


def deal_rows(
    columns: Sequence[Array],
    numbers: Sequence[Array],
    sizes: Sequence[int],
    seed: int,
    dealing: Dealing,
) -> tuple[tuple[Tensor, ...], int | None]:
    """Deals rows as :func:`deal` does, with :func:`copies` as groups if `dealing` is "values".

    Also gives the number of distinct rows, None if there are no copies.
    """
    check_dealing(dealing)
    group = copies(columns, numbers) if dealing == "values" else None
    return deal(sizes, seed, group), None if group is None else len(np.unique(group))


def check_dealing(dealing: str) -> None:
    """Raises a ValueError if rows cannot be dealt in this way."""
    if dealing not in get_args(Dealing):
        raise ValueError(f"dealing: expected 'rows' or 'values', got {dealing!r}")


def deal(
    sizes: Sequence[int], seed: int, group: NDArray[np.int64] | None = None
) -> tuple[Tensor, ...]:
    """Deals rows at random into parts; those of a group go to the same part.

    The first part is that of training; the seed is that of a permutation of the rows. Without
    groups the parts have exactly these sizes. With them they are as near to these as whole groups
    allow, and only those of size 0 are empty. Groups larger than one of the later parts go
    to the first part, and the other rows are dealt as if these were not there.

    Example:
        >>> deal([3, 2], seed=0)
        (tensor([4, 0, 1]), tensor([3, 2]))
        >>> deal([3, 2], seed=0, group=np.array([0, 1, 0, 1, 1]))
        (tensor([4, 1, 3]), tensor([0, 2]))
    """
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed))
    if group is None:
        return tuple(order.split(list(sizes)))
    places = group[order.numpy()]
    _, first, found, counts = np.unique(
        places, return_index=True, return_inverse=True, return_counts=True
    )
    large = counts > min((size for size in sizes[1:] if size), default=len(places))
    rank = np.where(large, first - len(places), first)  # each group where its first row is
    order = order[torch.from_numpy(np.argsort(rank[found], kind="stable"))]
    ends = np.cumsum(counts[np.argsort(rank)])
    wanted = [size for size in sizes if size]
    if len(ends) < len(wanted):
        raise ValueError(
            f"expected at least {len(wanted)} distinct rows to deal into {len(wanted)} parts, "
            f"found {len(ends)} in {len(places)} rows"
        )
    cuts, done, last = [], max(int(large.sum()) - 1, 0), int(counts[large].sum())
    for i, size in enumerate(sizes):
        if size:
            # As near as can be, with a group for this part and one for each that is to come.
            wanted.pop()
            room = len(ends) - len(wanted)
            done = min(done, room - 1)
            some = ends[done:room]
            target = last + (len(places) - last) * size / sum(sizes[i:])
            best = int(np.abs(some - target).argmin())
            done, last = done + best + 1, int(some[best])
        cuts.append(last)
    return tuple(order.tensor_split(cuts[:-1]))
