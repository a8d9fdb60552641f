"""Small runs that several tests train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from maskedflow.data import Dataset, Split
from maskedflow.flows import Flow
from maskedflow.runs import DataConfig, FlowConfig, FlowDensity, Run, RunConfig, describe, train_run
from maskedflow.training import TrainConfig


def gaussian(n: int, context: bool = False) -> Dataset:
    """Correlated Gaussian columns in units of their own, the last one a context if asked for."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.5, 0.2], [0.0, 1.0, -0.4], [0.0, 0.0, 2.0]])
    x = torch.randn(n, 3, generator=generator) @ mixing * torch.tensor([1.0, 100.0, 0.01]) + 7
    train, validation, test = (
        Split(part[:, :2], part[:, 2:]) if context else Split(part)
        for part in x.split([n - 2 * (n // 4), n // 4, n // 4])
    )
    if context:
        return Dataset("g", train, validation, test, ("a", "b"), context_columns=("c",))
    return Dataset("g", train, validation, test, ("a", "b", "c"))


def config_of(dataset: Dataset, epochs: int = 1, **arguments: Any) -> RunConfig:
    preprocessing, embedding = dataset.preprocessing(), dataset.embedding()
    return RunConfig(
        dataset.name,
        DataConfig(
            columns=dataset.columns,
            context_columns=dataset.context_columns,
            rows=dataset.rows,
            **dataset.record,
            file="somewhere.csv",
        ),
        FlowConfig(
            "MAF",
            {
                "features": dataset.features,
                "context": dataset.context_features,
                "transforms": 2,
                "hidden_features": [16],
                "degrees": "sequential",
                "batch_norm": False,
                "widen": False,
                **arguments,
            },
            preprocessing=tuple(describe(t) for t in preprocessing.transforms)
            if preprocessing
            else (),
            embedding=None if embedding is None else describe(embedding),
        ),
        TrainConfig(epochs=epochs, batch_size=100, lr=1e-2),
    )


def trained(folder: Path, dataset: Dataset, epochs: int = 1, **arguments: Any) -> Run:
    run, _ = train_run(folder, config_of(dataset, epochs, **arguments), dataset)
    return run


def small_density(flow: Flow) -> FlowDensity:
    """A flow of two features, given one, as the density of a run."""
    config = FlowConfig("MAF", {"features": 2, "context": 1})
    return FlowDensity(flow, config, DataConfig(("a", "b"), (1, 1, 1), context_columns=("c",)))
