"""Flows that are fitted to draws, and how they do on others."""

from __future__ import annotations

import math

import torch
from scipy.stats import ks_2samp, kstest
from torch import Tensor

from maskedflow.data import ContextStandardizer, Split
from maskedflow.flows import NSF, Flow
from maskedflow.training import Ranks, TrainConfig, evaluate, fit
from maskedflow.training.evaluation import frozen
from maskedflow.transforms import LazyTransform, Narrow, Probit, Standardize

from .named import HeldOut, NamedDensity

DRAWS = 20_000
"""The draws that a flow is fitted to, unless another number is asked for."""
CONFIG = TrainConfig(epochs=20, batch_size=500, lr=5e-3, schedule="cosine")

_LINES, _HALVINGS = 32, 60
_RANKED, _EACH = 500, 100


def fit_draws(
    x: Tensor,
    context: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    support: Probit | None = None,
    seed: int = 0,
) -> tuple[Flow, HeldOut]:
    """Fits a flow of splines to draws, of which a tenth decides when to stop and a fifth tests.

    Args:
        x: The draws, shape (n, D).
        context: What each is given, shape (n, C).
        weight: How much each counts, shape (n,); they are put into a random order then, and
            those that test are drawn in proportion to their weights.
        support: What no draw of the flow is to leave.
        seed: Seed of first weights and of the test.
    """
    generator = torch.Generator().manual_seed(seed)
    if weight is not None:
        order = torch.randperm(len(x), generator=generator)
        x, weight = x[order], weight[order]
    front: list[LazyTransform] = []
    mapped = x
    if support is not None:
        support = support.to(x.dtype)
        x = support.inside(x)
        front, mapped = [support], support()(x)
    front.append(Standardize(*Split(mapped, weight=weight).moments))
    if x.dtype == torch.float64:
        front.append(Narrow())
    embedding = None if context is None else ContextStandardizer(*Split(context).moments)
    core = NSF(
        x.shape[1],
        0 if context is None else context.shape[1],
        transforms=3,
        hidden_features=(64, 64),
        generator=generator,
    )
    flow = Flow([*front, core.transform], core.base, embedding)
    rows = Split(x, context, weight=weight)
    first, last = 7 * len(x) // 10, 8 * len(x) // 10
    fit(flow, rows[:first], rows[first:last], CONFIG, ranks=Ranks(alone=True))
    flow.eval().requires_grad_(False)
    test = rows[last:]
    if test.weight is not None:
        drawn = torch.multinomial(test.weight, len(test), replacement=True, generator=generator)
        test = Split(test.x[drawn])
    return flow, _held_out(flow, test, seed)


def _held_out(flow: Flow, test: Split, seed: int) -> HeldOut:
    log_prob = evaluate(flow, test)
    generator = torch.Generator().manual_seed(seed)
    with frozen(flow):
        if test.context is None:
            drawn = flow().sample((len(test),), generator=generator)
            found = ks_2samp(evaluate(flow, Split(drawn)).numpy(), log_prob.numpy())
        else:
            made = flow(test.context[:_RANKED])
            drawn = made.sample((_EACH,), generator=generator)
            lower = made.log_prob(drawn) < log_prob[:_RANKED].to(drawn)
            ranks = lower.sum(dim=0) + torch.rand(lower.shape[1], generator=generator)
            found = kstest((ranks / (_EACH + 1)).numpy(), "uniform")
    mean, error = log_prob.mean().item(), log_prob.std().item() / math.sqrt(len(test))
    return HeldOut(mean, error, float(found.statistic), float(found.pvalue), len(test))


@torch.no_grad()
def support_of(density: NamedDensity, x: Tensor, index: Tensor) -> Probit | None:
    """Where some columns end, as the density of draws x says that is moved along each of them.

    A bound is looked for between the outermost draw and as far again as draws range.
    """
    rows = x[:_LINES].double()
    least, most = (end.double() for end in (x.amin(dim=0), x.amax(dim=0)))
    ends = torch.full((2, len(index)), math.inf, dtype=torch.float64)
    ends[0] = -math.inf
    for place, column in enumerate(index.tolist()):
        for side, far in enumerate((2 * least - most, 2 * most - least)):
            outside, inside = far[column].expand(len(rows)), rows[:, column]
            if not _is_zero(density, rows, column, outside).all():
                continue
            for _ in range(_HALVINGS):
                middle = (outside + inside) / 2
                zero = _is_zero(density, rows, column, middle)
                outside = torch.where(zero, middle, outside)
                inside = torch.where(zero, inside, middle)
            ends[side, place] = outside.max() if side else outside.min()
    return Probit(*ends) if ends.isfinite().any() else None


def _is_zero(density: NamedDensity, rows: Tensor, column: int, value: Tensor) -> Tensor:
    """Whether the density is zero where a column has other values."""
    moved = rows.clone()
    moved[:, column] = value
    return density.log_prob(moved) == -math.inf
