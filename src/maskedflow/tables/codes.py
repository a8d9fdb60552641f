"""The search for a distribution of categories: a tree of frequencies, and a network beyond it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from maskedflow.training import TrainConfig

from .categories import AutoregressiveCategorical
from .distinct import effective
from .fitting import Weighed, train
from .plan import build_categories
from .tree import fit_tree
from .work import epochs_within

__all__ = ["fit_categories"]

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


def fit_categories(
    levels: Sequence[int], rows: Weighed, seed: int, work: float
) -> tuple[AutoregressiveCategorical, dict[str, Any]]:
    """Fits a distribution to rows of codes, and to what they are given.

    It starts as a tree (:func:`fit_tree`). How many epochs of a network beyond it help, none
    perhaps, is found by cross-validation; then all rows are fitted so long. Returns the
    distribution, and the plan to build it again.
    """
    context = 0 if rows.split.context is None else rows.split.context.shape[1]
    number = effective(rows.weight)
    rows = Weighed(rows.split, rows.weight * (number / rows.weight.sum()))

    def start(
        part: Weighed, hidden: int | None
    ) -> tuple[AutoregressiveCategorical, dict[str, Any]]:
        parents, tables = fit_tree(part.split.x.long(), levels, part.weight)
        plan = {"parents": list(parents), "hidden": hidden, "seed": seed}
        made = build_categories(levels, context, plan)
        assert made.tables is not None
        made.tables.set(tables)
        return made, plan

    alone = len(levels) == 1 and not context
    if alone or number < _FEWEST or sum(levels) > _LEVELS:
        return start(rows, None)
    hidden = max(_HIDDEN, len(levels))
    network = start(rows[torch.arange(1)], hidden)[0]
    weights = sum(p.numel() for p in network.parameters()) + _COLUMN * len(levels)
    batch_size = min(max(len(rows) // 10, _SMALLEST), _LARGEST)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    folds = order.tensor_split(_FOLDS if len(rows) < _MANY else 10)
    turns = folds if len(rows) < _MANY else folds[:1]
    most = epochs_within(work / (len(turns) + 1), len(rows), weights, batch_size)
    if not most:
        return start(rows, None)
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
        first = -rows[validation].score(made)
        found = train(made, rows[rest], rows[validation], config).validation_nll
        mass = float(rows[validation].weight.sum())
        curves.append([mass * value for value in (first, *found)])
    length = max(map(len, curves))
    total = torch.tensor([curve + curve[-1:] * (length - len(curve)) for curve in curves]).sum(0)
    epochs = int(total.argmin())
    if not epochs:
        return start(rows, None)
    made, plan = start(rows, hidden)
    train(made, rows, rows[folds[0]], replace(config, epochs=epochs, patience=epochs))
    return made, plan
