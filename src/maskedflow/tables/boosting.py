"""Fitting a chain of boosted trees: each halving's are judged by rows that are held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor

from maskedflow.kernels import trees as kernel

from .boosted import CATEGORICAL, BoostedChain, ChainSize, features_of, width

_DEEPEST, _ROWS_A_CELL = 6, 6
"""The most halvings, and the rows that a cell should have."""
_BINS = 255
"""The most values of a column between which scikit-learn looks for a cut."""
_FAR = 5.0
"""Where the outermost cells begin at most."""
_FEWEST = 40
"""The fewest rows that trees are fitted to, and a quarter of the fewest that there have to be."""
_HELD_OUT = 300
"""Rows on which a single fit can be judged; with fewer there are several, on all rows in turn."""
_FOLDS, _PART = 5, 0.15
_SHARES = (0.999, 0.997, 0.99, 0.97, 0.9, 0.8, 0.7, 0.5)
_BOOSTING: dict[str, Any] = {
    "learning_rate": 0.1,
    "max_leaf_nodes": 15,
    "l2_regularization": 3.0,
    "tol": 0.0,
    "random_state": 0,
}
_ITERATIONS, _PATIENCE = 300, 8
_TREE, _COLUMN, _CELL = 5e-4, 1.1e-5, 2e-8
"""The work of a tree, and of each column and number that it is fitted to."""
_BINNING = 10
"""How much more than a tree it takes to bin the columns, once for all trees of a fit."""


def fit_boosted(
    z: Tensor,
    c: Tensor | None,
    observed: Tensor,
    weight: Tensor,
    *,
    levels: Sequence[int],
    present: Sequence[int | None],
    cells: tuple[Tensor, Tensor] | None = None,
    order: Sequence[int] | None = None,
    work: float = math.inf,
    seed: int = 0,
) -> tuple[BoostedChain, float]:
    """Fits a chain to rows of numbers, and says what work that was.

    Held-out rows say how many trees a halving gets, whether it gets any, and how far they are
    trusted: of few rows all in turn. Then the trees are fitted to all rows.

    Where numbers are on a grid, no two places of one of its cells are told apart: edges of cells
    and thresholds of trees are at edges of the grid.

    Args:
        z: The numbers, each of them near to N(0, 1), with shape (n, D).
        c: The context, with shape (n, C), or none.
        observed: Which of the numbers are there, with shape (n, D).
        weight: The rows' weights, with shape (n,).
        levels: The levels of the codes with whose one-hot vectors the context begins.
        present: See :class:`BoostedChain`.
        cells: The lower and the upper ends of the cells of a grid in which z are, both with shape
            (n, D), and both z itself where there is no grid.
        order: The order of the numbers in the chain, the given one if it is None.
        work: The most work, of which a unit is about a second of one core.
        seed: Says which rows are held out.
    """
    n, count = z.shape
    order = list(range(count)) if order is None else list(order)
    z = z.detach().double()
    bottom, top = (z, z) if cells is None else (end.detach().double() for end in cells)
    features = features_of(torch.where(observed, top, math.nan), c, levels)
    context = features.shape[1] - width(levels, 0, count)
    first = len(levels) + context
    # Codes that scikit-learn takes as they are come first, for there it would put them.
    codes = sorted(range(len(levels)), key=lambda k: levels[k] > CATEGORICAL)
    native = sum(size <= CATEGORICAL for size in levels)
    depth = min(max(int(math.log2(max(n / _ROWS_A_CELL, 2))), 1), _DEEPEST)
    on_grid = (bottom < top).any(dim=0).nonzero()[:, 0].tolist()
    tops = {d: np.unique(top[observed[:, d], d].numpy()) for d in on_grid}
    bottoms = {d: bottom[observed[:, d], d].numpy() for d in on_grid}
    ends = {first + d: tops[d] for d in on_grid}
    boosting = _Boosting((weight.double() / weight.double().mean()).numpy(), seed)
    if boosting.is_weighed:
        for k in range(len(levels), features.shape[1] - 1):
            features[:, k], ends[k] = _binned(features[:, k], boosting.weight)
    trees = _Trees(ends)
    cuts = [_cuts(2**depth, np.union1d(bottoms[d], tops[d]) if d in tops else None) for d in order]
    baseline, share = torch.zeros(2, count, depth, dtype=torch.float64)
    with threadpool_limits(1):
        for position, d in enumerate(order):
            edges = np.concatenate([[-math.inf], cuts[position], [math.inf]])
            cell = np.searchsorted(cuts[position], z[:, d].numpy(), side="right")
            before = [*codes, *range(len(levels), first), *(first + k for k in order[:position])]
            columns = np.array([*before, features.shape[1] - 1])
            low, high = np.zeros(n, np.int64), np.full(n, len(edges) - 1)
            for level in range(depth):
                middle = (low + high) // 2
                rows = np.flatnonzero((high - low > 1) & observed[:, d].numpy())
                is_upper, prior = cell >= middle, _priors(edges, low, middle, high)
                features[:, -1] = low
                x = features[:, columns]
                left = (count - position) * depth - level
                budget = (work - boosting.spent) / left
                known = boosting.fit(x, native, is_upper, prior, rows, budget) if before else None
                if known is not None:
                    model, share[position, level] = known
                    baseline[position, level] = model._baseline_prediction.item()
                    levels_known = [np.unique(x[rows, k]).astype(int) for k in range(native)]
                    trees.add(model, columns, levels_known)
                trees.close()
                low = np.where(is_upper & (high - low > 1), middle, low)
                high = np.where(is_upper | (high - low < 2), high, middle)
    made = trees.tensors()
    size = ChainSize(2**depth, *(len(made[name]) for name in ("roots", "nodes", "splits")))
    chain = BoostedChain(levels, present, context, size)
    chain.cells = torch.tensor([len(one) + 1 for one in cuts])
    for position, one in enumerate(cuts):
        chain.cuts[position, : len(one)] = torch.from_numpy(one)
    made |= {"order": torch.tensor(order), "baseline": baseline, "share": share}
    for name, tensor in made.items():
        setattr(chain, name, tensor)
    return chain, boosting.spent


def least_work(rows: int, features: int, given: int) -> float:
    """The work of one tree for each number and fold: a chain with less is hardly one."""
    columns = given + (features + 1) / 2
    return (_folds(rows) + 1) * features * sum(_work_of(rows, columns))


class _Trees:
    """Trees in a row, as the compiled functions take them."""

    def __init__(self, ends: dict[int, Any]) -> None:
        self.ends, self.size = ends, 0
        self.starts, self.roots = [0], list[int]()
        self.nodes, self.branches = [np.zeros(0, np.int32)], [np.zeros((0, 3), np.int16)]
        self.numbers, self.splits = [np.zeros(0)], list[Any]()

    def add(self, model: Any, columns: Any, known: Sequence[Any]) -> None:
        """Adds a model of some columns, the first of them codes of which some levels are known."""
        for (tree,) in model._predictors:
            made = tree.nodes
            leaf, categorical = made["is_leaf"] == 1, made["is_categorical"] == 1
            nodes = np.where(leaf, -1, columns[made["feature_idx"]]).astype(np.int32)
            numbers = np.where(leaf, made["value"], made["num_threshold"])
            for node in np.flatnonzero(categorical & ~leaf):
                numbers[node] = len(self.splits)
                levels = known[made["feature_idx"][node]]
                bits = tree.raw_left_cat_bitsets[made["bitset_idx"][node]].view(np.uint8)
                # A level that was never seen goes where a missing feature goes.
                left = np.full(256, made["missing_go_to_left"][node], np.uint8)
                left[levels] = np.unpackbits(bits, bitorder="little")[: len(levels)]
                self.splits.append(np.packbits(left, bitorder="little").view(np.int64))
            for feature, ends in self.ends.items():
                places = np.flatnonzero((nodes == feature) & np.isfinite(numbers))
                numbers[places] = ends[np.searchsorted(ends, numbers[places], side="right") - 1]
            missing = np.where(made["missing_go_to_left"] == 1, made["left"], made["right"])
            branches = np.stack([made["left"], made["right"], missing], axis=1)
            self.roots.append(self.size)
            self.size += len(nodes)
            self.nodes.append(nodes)
            self.branches.append(branches.astype(np.int16))
            self.numbers.append(numbers)

    def close(self) -> None:
        """Ends the trees of a halving."""
        self.starts.append(len(self.roots))

    def tensors(self) -> dict[str, Tensor]:
        found = {
            "starts": np.array(self.starts, np.int64),
            "roots": np.array(self.roots, np.int64),
            "nodes": np.concatenate(self.nodes),
            "branches": np.concatenate(self.branches),
            "numbers": np.concatenate(self.numbers),
            "splits": np.array(self.splits, np.int64).reshape(-1, 4),
        }
        return {name: torch.from_numpy(array) for name, array in found.items()}


class _Boosting:
    """Boosts trees that tell upper halves, judged by rows that are held out."""

    def __init__(self, weight: Any, seed: int) -> None:
        n = len(weight)
        self.weight, self.spent = weight, 0.0
        self.is_weighed = bool((weight != weight[0]).any())
        self.folds = _folds(n)
        held = n / _FOLDS if self.folds > 1 else min(n * _PART, 5_000)
        place = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
        self.fold = (place / max(held, 1)).astype(np.int64)

    def told(self, rows: Any) -> Any:
        """The weights of some rows; none if all are alike, which takes much less time."""
        return self.weight[rows] if self.is_weighed else None

    def fit(
        self, x: Any, native: int, upper: Any, prior: Any, rows: Any, work: float
    ) -> tuple[Any, float] | None:
        """Fits trees to some of the rows, and says how far to trust them; None if they are no use.

        The first columns of x are categorical. Without trees the upper half has its prior.
        """
        binning, tree = _work_of(len(rows), x.shape[1])
        iterations = int(min(_ITERATIONS, (work / (self.folds + 1) - binning) / tree))
        fold = self.fold[rows]
        parts = [(rows[fold != k], rows[fold == k]) for k in range(self.folds)]
        few = min(len(rows) - _FEWEST, *(len(held) - _FEWEST // 4 for _, held in parts))
        if few < 0 or iterations < 1 or any(len(set(upper[part])) < 2 for part, _ in parts):
            return None
        shown, counts = np.zeros(len(upper)), []
        for part, held in parts:
            model = _classifier(native, iterations, early_stopping=True)
            model.fit(
                x[part],
                upper[part],
                self.told(part),
                X_val=x[held],
                y_val=upper[held],
                sample_weight_val=self.told(held),
            )
            self.spent += binning + len(model._predictors) * tree
            counts.append(int(np.argmax(model.validation_score_)))
            del model._predictors[counts[-1] :]
            shown[held] = model.predict_proba(x[held])[:, 1]
        held = np.concatenate([held for _, held in parts])

        def gain(share: float) -> float:
            """How much likelier held-out rows are than without trees."""
            before = prior[held].clip(1e-12, 1 - 1e-12)
            p = share * shown[held] + (1 - share) * before
            ratio = np.where(upper[held], p / before, (1 - p) / (1 - before))
            return float(self.weight[held] @ np.log(ratio))

        share = max(_SHARES, key=gain)
        count = round(sum(counts) / len(counts))
        if not count or gain(share) <= 0:
            return None
        self.spent += binning + count * tree
        model = _classifier(native, count, early_stopping=False)
        return model.fit(x[rows], upper[rows], self.told(rows)), share


def _folds(rows: int) -> int:
    return _FOLDS if rows * _PART < _HELD_OUT else 1


def _work_of(rows: int, columns: float) -> tuple[float, float]:
    """The work of binning columns, and that of a tree then."""
    read = columns * (_COLUMN + _CELL * rows)
    return _BINNING * read, _TREE + read


def _classifier(native: int, iterations: int, early_stopping: bool) -> Any:
    return HistGradientBoostingClassifier(
        max_iter=iterations,
        early_stopping=early_stopping,
        n_iter_no_change=_PATIENCE,
        categorical_features=list(range(native)) or None,
        **_BOOSTING,
    )


def _cuts(cells: int, ends: Any | None) -> Any:
    """Cuts into cells that are equally likely, at ends of cells of a grid if there is one."""
    cuts = torch.special.ndtri(torch.arange(1, cells, dtype=torch.float64) / cells).numpy()
    if ends is not None:
        after = np.searchsorted(ends, cuts).clip(1, len(ends) - 1)
        lower, higher = ends[after - 1], ends[after]
        cuts = np.unique(np.where(cuts - lower < higher - cuts, lower, higher))
    return cuts[abs(cuts) < _FAR]


def _binned(x: Any, weight: Any) -> tuple[Any, Any]:
    """Numbers as the upper ends of bins of like weight, and these: trees cut nowhere else.

    Scikit-learn finds bins of its own, by sorting all rows for each of them if these have weights.
    """
    known = np.flatnonzero(~np.isnan(x))
    if not len(known):
        return x, x[:0]
    order = known[np.argsort(x[known], kind="stable")]
    total = np.cumsum(weight[order])
    last = np.searchsorted(total, np.linspace(0, total[-1], _BINS + 1)[1:-1])
    ends = np.unique(x[order[np.append(last, -1)]])
    return np.where(np.isnan(x), x, ends[np.searchsorted(ends, x).clip(max=len(ends) - 1)]), ends


def _priors(edges: Any, low: Any, middle: Any, high: Any) -> Any:
    """What N(0, 1) says of the upper halves, for each row; 1 where nothing is halved."""
    found = np.ones(len(low))
    for a, m, b in set(zip(low.tolist(), middle.tolist(), high.tolist(), strict=True)):
        if b - a > 1:
            rows = low == a
            share = kernel.between(edges[m], edges[b]) / kernel.between(edges[a], edges[b])
            found[rows] = share
    return found
