"""Flows by name, and how long they are trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from maskedflow.flows import MAF, NSF
from maskedflow.flows.flow import LazyDistribution
from maskedflow.training import TrainConfig
from maskedflow.transforms import LULinear

FlowBuilder = Callable[[int, int], LazyDistribution]
"""Makes a lazy distribution of so many features, given so many numbers."""

FLOWS: dict[str, FlowBuilder] = {
    "maf": partial(MAF, transforms=5, hidden_features=(50, 50)),
    "nsf": partial(NSF, transforms=3, hidden_features=(64, 64)),
    "modern": partial(
        NSF, transforms=3, hidden_features=(100, 100), residual=True, between=LULinear
    ),
}
"""Flows by name."""


def settings(rows: int, *, short: bool = False) -> TrainConfig:
    """The settings of a training on so many rows, of splines or, a short one, of affine maps."""
    epochs = 15 if short else min(max(600_000 // rows, 20), 60)
    return TrainConfig(
        epochs=epochs,
        batch_size=min(max(rows // 100, 50), 200),
        lr=5e-3,
        weight_decay=1e-2 if short else 1e-3,
        schedule="cosine",
        patience=epochs,
    )


def candidates(
    flow: str | FlowBuilder, features: int, rows: int, config: TrainConfig | None
) -> list[tuple[FlowBuilder, TrainConfig]]:
    """The flows of which the best is taken, each with the settings of its training.

    Splines reach shapes that affine maps do not; where the truth is linear and there are many
    parameters, affine maps learn it from fewer simulations. On 10,000 of them, in nats a test row:

    ==================== ======= ======
    simulator            splines affine
    ==================== ======= ======
    two moons            3.57    2.29
    SLCP                 -3.96   -5.54
    linear, 10 features  0.42    0.73
    a square, 1 feature  0.32    -0.28
    ==================== ======= ======

    A single feature is Gaussian to affine maps, so they are not tried there.

    Args:
        flow: A name, or a function that makes a flow.
        features: The features of the flow.
        rows: The rows that it is trained on.
        config: The settings; our own if None.

    Raises:
        ValueError: If no flow has the name.
        TypeError: If it is neither a name nor a function.
    """
    short = config or settings(rows, short=True)
    config = config or settings(rows)
    if flow == "auto":
        found = [(FLOWS["nsf"], config)]
        return found if features == 1 else [*found, (FLOWS["maf"], short)]
    if isinstance(flow, str):
        if flow not in FLOWS:
            raise ValueError(f"flow: expected one of auto, {', '.join(FLOWS)}, got {flow!r}")
        return [(FLOWS[flow], config)]
    if isinstance(flow, nn.Module) or not callable(flow):
        raise TypeError(
            f"flow: expected a name or a function of features and context, got a "
            f"{type(flow).__name__}"
        )
    return [(flow, config)]
