"""Finding a density for the rows of a table, within a time limit and from these rows alone."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from maskedflow.data import Split
from maskedflow.flows import LazyDistribution
from maskedflow.flows.flow import standard_normal
from maskedflow.training import TrainConfig, evaluate, fit
from maskedflow.transforms import LazyComposedTransform, LazyTransform, NormalScores

from .angles import fit_angles
from .bounds import column_maps
from .build import assemble, build_layers, build_mixture
from .categories import AutoregressiveCategorical
from .density import TableDensity, angle_context, number_context, present_columns
from .partial import PartialFlow, call_layers
from .rows import Layout, Rows
from .stack import Stack, stacking_weights
from .whiten import Whiten

__all__ = ["FLOWS", "fit_density"]

#: What `flow` may be, and the kinds of members that each tries: a front, and layers of a flow.
FLOWS: dict[str, tuple[tuple[str, str], ...]] = {
    "auto": (
        ("whiten", "aaas"),
        ("scores", "aaas"),
        ("margins", "sss"),
        ("whiten", "aaaaa"),
        ("whiten", "asas"),
    ),
    "gaussian": (),
    "maf": (("whiten", "aaaaa"),),
    "nsf": (("whiten", "sss"), ("margins", "sss")),
}

_FRONTS = {"whiten": (False, True), "scores": (True, True), "margins": (True, False)}
"""Whether a front makes margins normal, and whether it whitens then."""

_RIDGES = (1e-9, 1e-6, 1e-4, 1e-2, 1e-1, 1.0)
_COMPONENTS = (2, 4, 8, 16, 32, 64, 128)
_MIXING = 0.1
"""The share of the time after which no larger mixture is tried: the next takes twice as long."""
_FEWEST = 200
"""Rows below which no flow is tried."""
_FOLDS = 10
_JUDGES = 5_000
"""Most rows that judge."""
_CELLS = 10_000_000
"""Most cells that a member is fitted to: more could not be seen within minutes."""
_BLOCK = 10_000
"""Rows that are mapped at once."""
_MIXED = 2_000_000
"""Most cells that a mixture is fitted to."""
_MEMBERS = 8
_LEAST_WEIGHT = 0.02


@dataclass(frozen=True)
class _Member:
    """A density that was fitted, with the plan to build it again."""

    plan: dict[str, Any]
    density: LazyDistribution


class _Numbers:
    """The search for the density of the numbers, given what they are conditional on."""

    def __init__(
        self, layout: Layout, split: Split, here: Tensor, flow: str, seed: int, time_limit: float
    ) -> None:
        self.layout, self.all, self.here = layout, split, here
        self.flow, self.seed, self.time_limit = flow, seed, time_limit
        self.until = time.monotonic() + time_limit
        self.features = split.x.shape[1]
        self.given = 0 if split.context is None else split.context.shape[1]
        self.ridge = _RIDGES[0]
        n = len(split)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        # Members are weighed by the first tenth, and trained on the others.
        self.folds = order.tensor_split(_FOLDS) if n >= _FOLDS else (order,)

    def run(self) -> tuple[Stack, list[dict[str, Any]]]:
        """Tries each kind once, weighs them, and trains more of the best."""
        large = len(self.all) >= _FEWEST
        rows, judges = self.fold(0)
        members = [self.gaussian("whiten", rows, judges)]
        if self.flow == "auto" and large:
            members.append(self.gaussian("scores", rows, judges))
        if self.flow == "auto" and self.here.all():
            members += self.mixture(rows, judges, members)
        first, kinds = len(members), FLOWS[self.flow] if large else ()
        for number, (front, layers) in enumerate(kinds):
            limit = 0.6 * self.left() / (len(kinds) - number + 1)
            members.append(self.train(front, layers, 0, limit))
        log_probs = [evaluate(one.density, self.part(judges)) for one in members]
        weights = stacking_weights(torch.stack(log_probs, dim=1)).tolist()
        kept = [k for k, weight in enumerate(weights) if weight >= _LEAST_WEIGHT]
        groups = {k: [members[k]] for k in kept}
        flows = [k for k in kept if k >= first]
        for fold in range(1, _MEMBERS if flows else 1):
            if self.left() < 0.1 * self.time_limit:
                break
            k = max(flows, key=lambda k: weights[k] / (len(groups[k]) + 1))
            limit = max(self.left() / (_MEMBERS - fold + 1), min(15.0, 0.8 * self.left()))
            groups[k].append(self.train(*kinds[k - first], fold, limit))
        found = [one for group in groups.values() for one in group]
        shares = [weights[k] / len(group) for k, group in groups.items() for _ in group]
        stack = Stack([one.density for one in found], torch.tensor(shares, dtype=torch.float64))
        return stack, [one.plan for one in found]

    def left(self) -> float:
        """The seconds that are left."""
        return max(self.until - time.monotonic(), 0.01)

    def fold(self, number: int) -> tuple[Tensor, Tensor]:
        """Rows to fit, and other rows to judge, as far as there are any."""
        judges = self.folds[number % len(self.folds)]
        if len(self.folds) == 1:
            return judges, judges
        rest = [self.folds[(number + k) % len(self.folds)] for k in range(1, len(self.folds))]
        return torch.cat(rest)[: _CELLS // self.features], judges[:_JUDGES]

    def part(self, rows: Tensor) -> Split:
        """Some of the rows."""
        return _at(self.all, rows)

    def through(self, front: list[LazyTransform], rows: Tensor) -> Split:
        """Some of the rows, mapped to the real line and through what comes before a flow."""
        steps = [column_maps(self.layout), *front]
        whole = LazyComposedTransform(*steps)
        found = []
        for block in rows.split(_BLOCK):
            part, here = self.part(block), self.here[block]
            if here.all():
                found.append(whole(part.context)(part.x))
            else:
                found.append(call_layers(steps, part.x, part.context, here)[0])
        return Split(torch.cat(found), self.part(rows).context)

    def front(self, name: str, rows: Tensor, ridge: float) -> list[LazyTransform]:
        """Fits what comes before a flow."""
        scores, whiten = _FRONTS[name]
        steps: list[LazyTransform] = []
        if scores:
            steps.append(NormalScores.fit(self.through([], rows).x, self.here[rows]))
        if whiten:
            steps.append(self.whiten(self.through(steps, rows), rows, ridge))
        return steps

    def whiten(self, part: Split, rows: Tensor, ridge: float) -> Whiten:
        """Fits a linear map that makes rows, mapped already, uncorrelated."""
        return Whiten.fit(part.x, part.context, self.here[rows], ridge=ridge)

    def gaussian(self, name: str, rows: Tensor, judges: Tensor) -> _Member:
        """Fits a Gaussian, with the ridge that the judges like best."""
        value, found = -math.inf, None
        before = self.front(name, rows, self.ridge)[:-1]
        part = self.through(before, rows)
        for ridge in _RIDGES:
            front = [*before, self.whiten(part, rows, ridge)]
            density = assemble(self.layout, front).double()
            now = float(evaluate(density, self.part(judges)).mean())
            if found is not None and not now > value:
                break
            value, found = now, _Member(_plan(front), density)
            self.ridge = ridge
        assert found is not None
        return found

    def mixture(self, rows: Tensor, judges: Tensor, beside: Sequence[_Member]) -> list[_Member]:
        """Fits mixtures of Gaussians to whitened rows, and keeps the one that helps others most.

        By itself a mixture can lose all for a row far out, which others in the stack can bear.
        """
        front = self.front("whiten", rows, self.ridge)
        fitted = self.through(front, rows[: _MIXED // self.features]).x.numpy()
        known = [evaluate(one.density, self.part(judges)) for one in beside]
        value, found, worse = -math.inf, list[_Member](), 0
        until = self.left() - _MIXING * self.time_limit
        for components in _COMPONENTS:
            if components * 4 * (self.features + 1) > len(fitted):
                break
            made = GaussianMixture(components, reg_covar=1e-6, random_state=self.seed, max_iter=100)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                made.fit(fitted)
            logits, loc, covariance = (
                torch.from_numpy(part) for part in (made.weights_, made.means_, made.covariances_)
            )
            base = build_mixture(logits.log(), loc, torch.linalg.cholesky(covariance))
            density = assemble(self.layout, front, (), base).double()
            log_probs = torch.stack([*known, evaluate(density, self.part(judges))], dim=1)
            now = float((log_probs + stacking_weights(log_probs).log()).logsumexp(dim=1).mean())
            worse = 0 if now > value else worse + 1
            if now > value:
                value, found = now, [_Member(_plan(front) | {"components": components}, density)]
            if worse == 2 or self.left() < until:
                break
        return found

    def train(self, name: str, layers: str, fold: int, limit: float) -> _Member:
        """Trains a flow, in single precision, on what its front leaves."""
        rows, judges = self.fold(fold)
        front, seed = self.front(name, rows, self.ridge), self.seed + fold
        hidden = 128 if self.features <= 64 else 256
        flow = build_layers(self.features, self.given, layers, hidden, seed)
        density = PartialFlow(flow, standard_normal(self.features), present_columns(self.layout)[1])
        lr = 2e-3 if name == "margins" else 1e-3
        _train(density, self.through(front, rows), self.through(front, judges), seed, limit, lr)
        plan = _plan(front) | {"layers": layers, "hidden": hidden, "seed": seed}
        return _Member(plan, assemble(self.layout, front, flow).double())


def fit_density(
    layout: Layout,
    rows: Rows,
    c: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    flow: str = "auto",
    time_limit: float = 300.0,
    seed: int = 0,
) -> TableDensity:
    """Fits a density to the rows of a table.

    The numbers get a stack of densities: Gaussians, a mixture of them, and flows behind margins
    made normal or whitened columns, each judged by rows that it was not fitted to. The weights are
    those that other rows like best (:func:`stacking_weights`); the kinds that weigh most are
    trained again, with other orders and without other rows.

    Args:
        layout: What the columns are.
        rows: The rows.
        c: Their contexts, with shape (n, context), or none.
        weight: How much each row counts, with shape (n,); all alike if None. Rows are repeated
            accordingly.
        flow: What is tried, one of `FLOWS`.
        time_limit: About how many seconds it may take.
        seed: Seed of every random draw.

    Returns:
        The density, in double precision and evaluation mode, with its `plan`.

    Raises:
        ValueError: If `flow` is unknown, or there are no rows.

    Example:
        >>> x = torch.randn(50, 1, dtype=torch.float64)
        >>> there = torch.ones(50, 1).bool()
        >>> none = torch.zeros(50, 0)
        >>> rows = Rows(none.long(), x, there, none.double(), none.bool(), ~there[:, 0])
        >>> layout = Layout((), (None,), (), (0.0,), (None,), (None,))
        >>> fit_density(layout, rows).log_prob(rows).shape
        torch.Size([50])
    """
    if flow not in FLOWS:
        raise ValueError(f"flow: expected one of {', '.join(FLOWS)}, got {flow!r}")
    rows, c = _counted(rows, c, weight, seed)
    if not len(rows):
        raise ValueError("rows: expected at least one that is possible, got none")
    context = 0 if c is None else c.shape[1]
    c = None if c is None else c.double()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    judges, fitted = (
        (order, order) if len(order) < _FOLDS else order.tensor_split([len(order) // 10])
    )
    categories = angles = numbers = None
    plan: dict[str, Any] = {"context": context}
    parts = sum(map(bool, (layout.levels, layout.angle_state))) + 3
    if layout.levels:
        categories = AutoregressiveCategorical(
            layout.levels, context, generator=torch.Generator().manual_seed(seed)
        )
        categories.start_at(rows.codes[fitted])
        split = Split(rows.codes.double(), c)
        _train(categories, _at(split, fitted), _at(split, judges), seed, time_limit / parts, 1e-3)
    if layout.angle_state:
        split = Split(rows.angles, angle_context(layout, rows, c))
        folds = order.tensor_split(_FOLDS) if len(order) >= _FOLDS else (order,)
        there = present_columns(layout)[0]
        angles, plan["angles"] = fit_angles(there, split, folds, seed, time_limit / parts)
    if layout.value_state:
        given = number_context(layout, rows, c)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(rows.values.shape, dtype=torch.float64, generator=generator)
        x = rows.values + noise * torch.tensor(layout.steps, dtype=torch.float64)
        search = _Numbers(
            layout, Split(x, given), rows.observed, flow, seed, time_limit * 3 / parts
        )
        numbers, plan["members"] = search.run()
        plan["given"] = search.given
    found = TableDensity(layout, categories, angles, numbers)
    found.plan = plan
    return found.double().eval()


def _counted(
    rows: Rows, c: Tensor | None, weight: Tensor | None, seed: int
) -> tuple[Rows, Tensor | None]:
    """Possible rows, as often as they count."""
    share = (~rows.impossible).double()
    if weight is not None:
        share = share * weight.double()
    if not share.sum() > 0:
        return rows[:0], None if c is None else c[:0]
    if weight is None:
        index = share.nonzero()[:, 0]
    else:
        # Systematic sampling: a row of twice the weight is there twice as often.
        places = (torch.arange(len(share), dtype=torch.float64) + 0.5) / len(share)
        index = torch.searchsorted((share / share.sum()).cumsum(0), places)
        index = index.clamp(max=int(share.nonzero().max()))
    return rows[index], None if c is None else c[index]


def _at(split: Split, rows: Tensor) -> Split:
    return Split(split.x[rows], None if split.context is None else split.context[rows])


def _plan(front: list[LazyTransform]) -> dict[str, Any]:
    """How to build a front again."""
    knots = next((step.x.shape[1] for step in front if isinstance(step, NormalScores)), 0)
    return {"front": {"knots": knots, "whiten": any(isinstance(s, Whiten) for s in front)}}


def _train(
    flow: nn.Module, train: Split, judges: Split, seed: int, limit: float, lr: float
) -> None:
    """Trains in single precision for a while."""
    n = len(train)
    config = TrainConfig(
        epochs=30,
        batch_size=256 if n < 20_000 else 512 if n < 100_000 else 1000,
        lr=lr,
        schedule="cosine",
        patience=12,
        seed=seed,
        time_limit=max(limit, 0.1),
    )
    train, judges = (
        Split(one.x.float(), None if one.context is None else one.context.float())
        for one in (train, judges)
    )
    fit(flow, train, judges, config)
