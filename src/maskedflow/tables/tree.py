"""Categories as a tree of dependence: each is given one before it, or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

__all__ = ["fit_tree"]

_PRIORS = (0.01, 0.1, 0.5, 2.0, 8.0, 32.0, 128.0)
"""How many rows a column's own frequencies may count for, beside those given another column."""
_NEAR = 128
"""How many columns before it may be the one that a column is given."""
_BLOCK = 10_000
"""Rows that are counted at once."""


def fit_tree(
    codes: Tensor, levels: Sequence[int], weight: Tensor
) -> tuple[tuple[int, ...], list[Tensor]]:
    r"""Finds for each column one before it that says most about it, and the frequencies given that.

    .. math:: P(b \mid a) = \frac{n_{ab} + \alpha p_b}{n_a + \alpha}

    with the frequencies :math:`p_b` of the column itself. Parent and :math:`\alpha` are those with
    which each row is likeliest given all others. No column is taken if none helps.

    Of codes with shape (n, K), and of weights, in all the number of rows, it makes for each column
    the place of the other, -1 if there is none, and the logarithms of the frequencies, with shape
    (levels of the other or 1, levels).

    References:
        | Approximating Discrete Probability Distributions with Dependence Trees
        | (Chow and Liu, 1968)

    Example:
        >>> codes = torch.tensor([[0, 1], [1, 0]]).repeat(20, 1)
        >>> parents, (_, table) = fit_tree(codes, [2, 2], torch.ones(40))
        >>> parents, table.exp().round(decimals=2).diagonal()
        ((-1, 0), tensor([0., 0.], dtype=torch.float64))
    """
    weight = weight.double()
    parents, tables = [], []
    for k, count in enumerate(levels):
        single = torch.bincount(codes[:, k], weight, count)
        share = (single + 1 / count) / (single.sum() + 1)
        first = max(0, k - _NEAR)
        near = list(levels[first:k])
        pairs = _pairs(codes[:, first:k], near, codes[:, k], count, weight)
        parent, alpha = _parent(pairs, single, near)
        if parent < 0:
            parents.append(-1)
            tables.append(share.log()[None])
            continue
        parents.append(first + parent)
        n = pairs.split(near)[parent]
        tables.append(((n + alpha * share) / (n.sum(dim=1, keepdim=True) + alpha)).log())
    return tuple(parents), tables


def _pairs(
    others: Tensor, levels: Sequence[int], column: Tensor, count: int, weight: Tensor
) -> Tensor:
    """How often each level of each other column comes with each of a column's."""
    total = weight.new_zeros(sum(levels) * count)
    starts = torch.tensor([0, *accumulate(levels)][:-1], dtype=torch.long)
    for rows in torch.arange(len(column)).split(_BLOCK):
        place = (others[rows] + starts) * count + column[rows, None]
        part = weight[rows, None].expand(place.shape)
        total += torch.bincount(place.flatten(), part.flatten(), len(total))
    return total.view(-1, count)


def _parent(pairs: Tensor, single: Tensor, levels: Sequence[int]) -> tuple[int, float]:
    """The best parent by the likelihood of rows left out one by one, and its prior."""
    if not levels or len(single) < 2:
        return -1, 0.0
    left = (single - 1).clamp(min=0)
    share = (left + 1 / len(single)) / single.sum()
    alone = float((single * share.log()).sum())
    # Of many that say nothing one seems to say something.
    best, found = alone + 1 + math.log(len(levels)), (-1, 0.0)
    which = torch.arange(len(levels)).repeat_interleave(torch.tensor(levels))
    rest = (pairs - 1).clamp(min=0)
    total = (pairs.sum(dim=1, keepdim=True) - 1).clamp(min=0)
    for alpha in _PRIORS:
        terms = pairs * ((rest + alpha * share) / (total + alpha)).log()
        sums = pairs.new_zeros(len(levels)).index_add_(0, which, terms.sum(dim=1))
        if sums.max() > best:
            best, found = float(sums.max()), (int(sums.argmax()), alpha)
    return found
