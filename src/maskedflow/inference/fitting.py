"""What inference of posteriors and of likelihoods have in common: densities that are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from maskedflow.data import Split
from maskedflow.data.split import deal
from maskedflow.flows import Flow
from maskedflow.training import History, TrainConfig, fit
from maskedflow.training.randomness import derive_seed

from .ensemble import Ensemble

VALIDATION = 0.1
"""The share of simulations that tells when to stop."""


def default_config(rows: int) -> TrainConfig:
    """The settings of a training that is not told any, by the number of simulations."""
    return TrainConfig(
        epochs=60, batch_size=200, lr=3e-3, weight_decay=0.0, schedule="cosine", patience=60
    )


def fit_ensemble(
    build: Callable[[int], Flow],
    target: Tensor,
    context: Tensor,
    *,
    members: int,
    config: TrainConfig | None,
    seed: int,
    progress: bool = False,
) -> tuple[Ensemble, tuple[History, ...]]:
    """Trains densities of a target given a context, each from its own seed on its own split.

    Args:
        build: Makes one, given a seed.
        target: What the density is of, with shape (n, D).
        context: What it is given, with shape (n, *shape).
        members: How many densities there are.
        config: The settings, whose seed is replaced; :func:`default_config` if None.
        seed: The seed that all others follow from.
        progress: Whether to draw a progress bar.
    """
    flows, histories = [], []
    held = max(1, round(VALIDATION * len(target)))
    config = config or default_config(len(target) - held)
    for member in range(members):
        own = derive_seed(seed, member)
        flow = build(own)
        train, validation = deal([len(target) - held, held], seed=own)
        histories.append(
            fit(
                flow,
                Split(target[train], context[train], checked=True),
                Split(target[validation], context[validation], checked=True),
                replace(config, seed=own % 2**62),
                progress=progress,
            )
        )
        flows.append(flow)
    return Ensemble(flows).eval(), tuple(histories)
