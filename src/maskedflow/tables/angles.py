"""Finding a density for the angles of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import i0e, i1e
from torch import Tensor

from maskedflow.data import Split
from maskedflow.data.split import effective
from maskedflow.flows.stack import Stack, stacking_weights
from maskedflow.training import Ranks, TrainConfig, evaluate, fit

from .circular import AutoregressiveVonMises
from .missing import observed_features
from .work import INTERPRETED, batch_size_of

Numbers = NDArray[np.float64]
Margin = tuple[Tensor, Tensor, Tensor]

_COMPONENTS = 8
"""The components of a network's mixtures, more if a margin has more."""
_HIDDEN = (64, 64)
_TRIED = (1, 2, 3, 4, 6, 8, 12, 16)
"""The numbers of components that a margin may have."""
_FEWEST = 5
"""Rows that a component of several must have."""
_PENALTY = 0.75
"""Of a parameter, in units of log n: half as much again as in the Bayesian information criterion,
for a component may be made of what lies close together by chance."""
_EM_ROWS, _EM_STEPS = 10_000, 100
_NEAR = 10
"""So many neighbours in a row limit how concentrated a component may be."""
_PARTS, _FOLDS, _FOLD_ROWS = 10, 5, 10_000
"""The parts of the rows; the networks that are trained, fewer of so many rows and more."""
_STEPS, _MOST_EPOCHS, _FEWEST_EPOCHS = 2000, 300, 5
_LEAST_WEIGHT = 0.02


def fit_angles(
    present: Sequence[int | None], rows: Split, seed: int, work: float
) -> tuple[Stack, list[dict[str, Any]]]:
    """Fits a density to rows of angles: mixtures of von Mises distributions, stacked.

    One member has the margins of the angles alone, fitted by expectation-maximisation. If there is
    something to depend on, others start there and learn by gradients how angles depend on each
    other and on the context, each without a fold of the rows that says when to stop. All rows,
    each judged by what was fitted without it, weigh margins and networks. Each member has a plan.
    """
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    folds = order.tensor_split(_PARTS) if len(order) >= _PARTS else (order,)
    count = max(1, min(_FOLDS, len(folds) - 1, _FOLD_ROWS // len(rows)))
    context = 0 if rows.context is None else rows.context.shape[1]
    found = observed_features(present, rows.context)
    observed = torch.ones_like(rows.x, dtype=torch.bool) if found is None else found
    members = [_made(present, context, _margins(rows, observed), (), seed)]
    shares = torch.ones(1, dtype=torch.float64)
    if len(folds) > 1 and (context or len(present) > 1):
        judged, log_probs = [], []
        every = _FOLDS if count > 1 else len(folds)
        for k in range(count):
            validation = torch.cat(list(folds[k::every]))
            fitted = torch.arange(len(rows))
            fitted = fitted[~torch.isin(fitted, validation)]
            margins = _margins(rows[fitted], observed[fitted])
            alone = _made(present, context, margins, (), seed)
            network = _made(present, context, margins, _HIDDEN, seed + k)
            _train(network, rows[fitted], rows[validation], seed + k, work / count)
            members.append(network)
            judged.append(rows[validation].mass)
            part = rows[validation]
            each = [evaluate(one.double(), part) for one in (alone, network)]
            log_probs.append(torch.stack(each, dim=1))
        weights = stacking_weights(torch.cat(log_probs), torch.cat(judged))
        weights = torch.where(weights < _LEAST_WEIGHT, 0, weights)
        shares = torch.cat([weights[:1], (weights[1:] / count).expand(count)])
    kept = [k for k in range(len(members)) if shares[k] > 0]
    plan = [
        {"hidden": list(_HIDDEN if k else ()), "components": members[k].components} for k in kept
    ]
    return Stack([members[k].double() for k in kept], shares[kept]), plan


def _made(
    present: Sequence[int | None],
    context: int,
    margins: Sequence[tuple[Margin, float]],
    hidden: Sequence[int],
    seed: int,
) -> AutoregressiveVonMises:
    """A density that starts at some margins; one without hidden layers is these."""
    generator = torch.Generator().manual_seed(seed)
    components = max(len(weights) for (weights, _, _), _ in margins)
    components = max(components, _COMPONENTS) if hidden else components
    made = AutoregressiveVonMises(present, context, components, hidden, generator=generator)
    with torch.no_grad():
        if not hidden:
            for parameter in made.parameters():
                parameter.zero_()
        made.most.copy_(torch.tensor([most for _, most in margins]).asinh())
    made.start_at([margin for margin, _ in margins])
    return made


def _train(
    network: AutoregressiveVonMises, rows: Split, validation: Split, seed: int, work: float
) -> None:
    batch = batch_size_of(len(rows))
    weights = sum(parameter.numel() for parameter in network.parameters())
    epochs = round(_STEPS / math.ceil(len(rows) / batch))
    epochs = min(max(epochs, _FEWEST_EPOCHS), _MOST_EPOCHS)
    epochs = max(min(epochs, INTERPRETED.epochs_within(work, len(rows), weights, batch)), 1)
    config = TrainConfig(
        epochs=epochs,
        batch_size=batch,
        lr=3e-3,
        schedule="cosine",
        patience=max(epochs // 4, 5),
        seed=seed,
    )
    fit(network, rows.in_float32(), validation.in_float32(), config, ranks=Ranks(alone=True))


def _margins(rows: Split, observed: Tensor) -> list[tuple[Margin, float]]:
    """A mixture for each angle, and the concentration that no component may pass."""
    found = []
    for column, known in zip(rows.x.T, observed.T, strict=True):
        values = column[known].double().numpy()
        most = _concentration(values)
        weights, mu, kappa = map(torch.from_numpy, _mixture(values, rows.mass[known], most))
        found.append(((weights, mu, kappa), most))
    return found


def _concentration(x: Numbers) -> float:
    """That of half the least distance of neighbours: on a grid no component is a single angle."""
    values = np.unique(np.round(x, 9))
    near = min(_NEAR, len(values) // 2)
    if not near:
        return 1.0
    circle = np.concatenate([values, values[:near] + 2 * math.pi])
    spread = (circle[near:] - circle[:-near]).min() / (2 * near)
    return float(1 / spread**2)


def _mixture(x: Numbers, weight: Tensor, most: float) -> tuple[Numbers, Numbers, Numbers]:
    """The mixture of von Mises distributions that a penalty on its parameters prefers."""
    if not len(x):
        return np.ones(1), np.zeros(1), np.zeros(1)
    order = np.argsort(x, kind="stable")[:: -(-len(x) // _EM_ROWS)]
    sample, counts = x[order], weight.numpy()[order]
    rows = effective(weight[torch.from_numpy(order)])
    counts = counts * (rows / counts.sum())
    found = []
    for components in _TRIED:
        if components > 1 and rows < 10 * components:
            break
        made, log_likelihood = _em(sample, counts, components, most)
        if components == 1 or made[0].min() * rows >= _FEWEST:
            penalty = _PENALTY * (3 * components - 1) * math.log(rows)
            found.append((log_likelihood - penalty, made))
    return max(found, key=itemgetter(0))[1]


def _em(
    x: Numbers, counts: Numbers, components: int, most: float
) -> tuple[tuple[Numbers, Numbers, Numbers], float]:
    """Fits a mixture to sorted angles, which it cuts into arcs at first, by their widest gap."""
    gaps = np.diff(x, append=x[0] + 2 * math.pi)
    start = np.roll(np.arange(len(x)), -int(gaps.argmax()) - 1)
    share = np.zeros((len(x), components))
    for k, arc in enumerate(np.array_split(start, components)):
        share[arc, k] = counts[arc]
    unit = np.exp(1j * x)
    for _ in range(_EM_STEPS if components > 1 else 1):
        count = share.sum(axis=0) + 1e-300
        total = unit @ share
        weights, mu = count / count.sum(), np.angle(total)
        # 1 - cos, without its rounding.
        apart = 2 * np.sin(0.5 * (x[:, None] - mu)) ** 2
        kappa = np.minimum(_concentrations((share * apart).sum(axis=0) / count), most)
        terms = np.log(weights) + (-kappa * apart - np.log(2 * math.pi * i0e(kappa)))
        each = np.logaddexp.reduce(terms, axis=1)
        share = counts[:, None] * np.exp(terms - each[:, None])
    return (weights, mu, kappa), float(counts @ each)


def _concentrations(apart: Numbers) -> Numbers:
    """The concentrations at which the mean of 1 - cos is such."""
    apart = np.clip(apart, 1e-12, 1.0)
    r = 1 - apart
    kappa = r * (2 - r**2) / (apart * (1 + r))
    for _ in range(5):  # Newton's steps
        ratio = i1e(kappa) / i0e(kappa)
        slope = np.maximum(1 - ratio / np.maximum(kappa, 1e-6) - ratio**2, 1e-12)
        step = (ratio - r) / slope
        kappa = np.clip(kappa - np.where(kappa < 100, step, 0), 0, None)
    return kappa
