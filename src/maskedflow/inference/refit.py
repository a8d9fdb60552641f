"""Flows that are fitted to draws, and how they do on others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.stats import ks_2samp, kstest
from torch import Tensor

from maskedflow.data import Dataset, Split
from maskedflow.flows import NSF, Flow
from maskedflow.training import TrainConfig, evaluate, fit
from maskedflow.training.evaluation import frozen

from .named import HeldOut

DRAWS = 20_000
"""The draws that a flow is fitted to, unless another number is asked for."""
CONFIG = TrainConfig(epochs=20, batch_size=500, lr=5e-3, schedule="cosine")
_RANKED, _EACH = 500, 100


def fit_draws(
    x: Tensor, columns: Sequence[str], context: Tensor | None = None, seed: int = 0
) -> tuple[Flow, HeldOut]:
    """Fits a flow of splines to draws, of which a tenth decides when to stop and a fifth tests."""
    n = len(x)
    cuts = (7 * n // 10, 8 * n // 10, n)
    starts = (0, *cuts)
    train, validation, test = (
        Split(x[start:end], None if context is None else context[start:end])
        for start, end in zip(starts, cuts, strict=False)
    )
    width = 0 if context is None else context.shape[1]
    names = tuple(f"given {i}" for i in range(width))
    data = Dataset("draws", train, validation, test, tuple(columns), names)
    front = data.preprocessing()
    assert front is not None
    generator = torch.Generator().manual_seed(seed)
    core = NSF(x.shape[1], width, transforms=3, hidden_features=(64, 64), generator=generator)
    flow = Flow([front, core.transform], core.base, data.embedding())
    fit(flow, train, validation, CONFIG)
    flow.eval().requires_grad_(False)
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
    error = log_prob.std().item() / math.sqrt(len(test))
    return HeldOut(
        log_prob.mean().item(), error, float(found.statistic), float(found.pvalue), len(test)
    )
