"""The search for a distribution of categories: a tree of frequencies, and a network beyond it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from maskedflow.data import Split
from maskedflow.training import Ranks, TrainConfig, evaluate, fit

from .categories import AutoregressiveCategorical
from .plan import build_categories
from .work import INTERPRETED

_FOLDS, _MANY = 5, 5_000
"""The folds of the rows, which validate in turn; of so many rows a single one does."""
_FEWEST = 20
"""Rows below which no network is tried."""
_EPOCHS, _STEPS = 1000, 400
"""Most epochs, and the steps without a gain that end a training."""
_SMALLEST, _LARGEST = 32, 256
"""The rows of a step."""
_LR = 3e-3
_COLUMN = 1500
"""The weights that take as long as a column's softmax."""
_HIDDEN, _LEVELS = 64, 3000
"""The least width of a network, and most levels, of all columns, of one."""
_PRIORS = (0.01, 0.1, 0.5, 2.0, 8.0, 32.0, 128.0)
"""How many rows a column's own frequencies may count for, beside those given another column."""
_NEAR = 128
"""How many columns before it may be the one that a column is given."""
_BLOCK = 10_000
"""Rows that are counted at once."""
_LEAF, _PAIR = 4e-4, 7e-9
"""The work of a column of a tree, and of each row and column that it may be given."""


def fit_categories(
    levels: Sequence[int], rows: Split, seed: int, work: float
) -> tuple[AutoregressiveCategorical, dict[str, Any], float]:
    """Fits a distribution to rows of codes, and to what they are given.

    It starts as a tree (:func:`fit_tree`). How many epochs of a network beyond it help, none
    perhaps, is found by cross-validation; then all rows are fitted so long. The plan is how to
    build it again, and the number the work that it took.
    """
    rows = replace(rows, weight=rows.mass * (rows.effective / rows.mass.sum()))

    given = 0 if rows.context is None else rows.context.shape[1]

    def start(part: Split, hidden: int | None) -> tuple[AutoregressiveCategorical, dict[str, Any]]:
        parents, tables = fit_tree(part.x.long(), levels, part.mass)
        plan = {"parents": list(parents), "hidden": hidden, "seed": seed}
        made = build_categories(levels, given, plan)
        logits = torch.cat([table.flatten() for table in tables])
        made.load_state_dict({"tables.logits": logits}, strict=False)
        return made, plan

    alone = len(levels) == 1 and not given
    tree = len(levels) * (_LEAF + _PAIR * len(rows) * min(len(levels), _NEAR))
    if alone or rows.effective < _FEWEST or sum(levels) > _LEVELS:
        return *start(rows, None), tree
    hidden = max(_HIDDEN, len(levels))
    plain = {"parents": [-1] * len(levels), "hidden": hidden, "seed": seed}
    network = build_categories(levels, given, plain)
    weights = sum(p.numel() for p in network.parameters()) + _COLUMN * len(levels)
    batch_size = min(max(len(rows) // 10, _SMALLEST), _LARGEST)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    folds = order.tensor_split(_FOLDS if len(rows) < _MANY else 10)
    turns = folds if len(rows) < _MANY else folds[:1]
    each = max(work / (len(turns) + 1) - tree, 0)
    most = INTERPRETED.epochs_within(each, len(rows), weights, batch_size)
    if not most:
        return *start(rows, None), tree
    epoch = INTERPRETED.training_work(len(rows), weights, batch_size)
    config = TrainConfig(
        epochs=min(most, _EPOCHS),
        batch_size=batch_size,
        lr=_LR,
        patience=max(10, math.ceil(_STEPS * batch_size / len(rows))),
        seed=seed,
    )
    curves = []
    for validation in turns:
        rest = torch.cat([fold for fold in folds if fold is not validation])
        made, _ = start(rows[rest], hidden)
        first = -rows[validation].mean(evaluate(made, rows[validation]))
        parts = rows[rest].in_float32(), rows[validation].in_float32()
        found = fit(made, *parts, config, ranks=Ranks(alone=True)).validation_nll
        mass = float(rows[validation].mass.sum())
        curves.append([mass * value for value in (first, *found)])
    length = max(map(len, curves))
    total = torch.tensor([curve + curve[-1:] * (length - len(curve)) for curve in curves]).sum(0)
    epochs, spent = int(total.argmin()), sum(len(curve) - 1 for curve in curves) * epoch
    spent += (len(turns) + 1) * tree
    if not epochs:
        return *start(rows, None), spent
    made, plan = start(rows, hidden)
    config = replace(config, epochs=epochs, patience=epochs)
    fit(made, rows.in_float32(), rows[folds[0]].in_float32(), config, ranks=Ranks(alone=True))
    return made, plan, spent + epochs * epoch


def fit_tree(
    codes: Tensor, levels: Sequence[int], weight: Tensor
) -> tuple[tuple[int, ...], list[Tensor]]:
    r"""Finds for each column one before it that says most about it, and the frequencies given that.

    .. math:: P(b \mid a) = \frac{n_{ab} + \alpha p_b}{n_a + \alpha}

    with the frequencies :math:`p_b` of the column itself. Parent and :math:`\alpha` are those with
    which each row is likeliest given all others. No column is taken if none helps.

    Of codes with shape (n, K), and of weights, in all the number of rows, it makes for each column
    the place of the other, -1 if there is none, and the logarithms of the frequencies.

    References:
        | Approximating Discrete Probability Distributions with Dependence Trees
        | (Chow and Liu, 1968)
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
        if parent >= 0:
            n = pairs.split(near)[parent]
            share = (n + alpha * share) / (n.sum(dim=1, keepdim=True) + alpha)
        parents.append(-1 if parent < 0 else first + parent)
        tables.append(share.log().view(-1, count))
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
