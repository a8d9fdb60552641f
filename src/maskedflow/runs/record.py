"""The record of a flow that is to be trained, and whether it goes on as an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from maskedflow.data import Dataset, MixedTable, Split, TableSplit
from maskedflow.recipes import SHAPES, recipe
from maskedflow.training import TrainConfig

from .asked import DIALECT, dialect_of, located
from .build import describe
from .config import DataConfig, FlowConfig, RunConfig

__all__ = ["check_same", "config_of", "weighed"]


def config_of(
    dataset: Dataset, settings: Mapping[str, Any], asked: Mapping[str, Any], **arguments: Any
) -> RunConfig:
    """The record of a flow that is to be trained.

    Args:
        dataset: The rows.
        settings: What :func:`~maskedflow.runs.settings.settle` gives.
        asked: Where the rows came from: `dataset` or `data`, `data_dir`, `context`, `weights`,
            `time`.
        arguments: Keyword arguments of the flow's constructor beside those of its recipe.
    """
    file, data_dir = (located(asked.get(name)) for name in ("data", "data_dir"))
    where: dict[str, Any] = {
        "dataset": asked.get("dataset"),
        "data_dir": data_dir,
        "time": asked.get("time"),
    }
    data = DataConfig(
        dataset.columns,
        dataset.rows,
        file=file,
        labels=settings["labels"],
        seed=settings["seed"],
        context_columns=dataset.context_columns,
        dealing=dataset.dealing,
        distinct=dataset.distinct,
        errors=dict(dataset.errors),
        dialect=dialect_of(asked),
        **weighed(asked.get("weights"), dataset),
        **where,
        **dataset.record,
    )
    made = recipe(settings["flow"])
    name = made.constructor
    shape = made.build(dataset.features, dataset.context_features, settings, data.image_shape)
    if data.window is not None:
        name = "TemporalMAF"
        shape |= {"steps": data.window, "hidden_size": settings["hidden_dim"]}
    preprocessing, embedding = dataset.preprocessing(), dataset.embedding()
    flow = FlowConfig(
        name,
        shape | arguments,
        settings["seed"],
        tuple(describe(step) for step in preprocessing.transforms) if preprocessing else (),
        None if embedding is None else describe(embedding),
    )
    training = TrainConfig(
        **{f.name: settings[f.name] for f in fields(TrainConfig) if f.name in settings}
    )
    takes = made.shaped_by(dataset.context_features > 0)
    told = {k: v for k, v in settings.items() if k not in SHAPES or k in takes}
    options = {**where, "window": data.window, "stream": data.stream, "data": file}
    options |= {name: asked.get(name) for name in ("context", "weights", "error", *DIALECT)}
    options["continuous"] = bool(asked.get("continuous"))
    return RunConfig(dataset.name, data, flow, training, options=options | told)


def weighed(column: str | None, table: Dataset | MixedTable) -> dict[str, Any]:
    """What the record says of weights."""
    if column is None:
        return {}
    named: dict[str, Split | TableSplit] = {"training": table.train, "test": table.test}
    if isinstance(table, Dataset):
        named["validation"] = table.validation
    for name, part in named.items():
        if part.weight is not None and not part.weight.any():
            raise ValueError(f"--weights {column}: all {len(part)} {name} rows have weight 0")
    names = "training", "validation", "test"
    return {
        "weights": column,
        "effective": tuple(named[name].effective if name in named else 0.0 for name in names),
    }


def check_same(config: RunConfig, then: RunConfig, directory: Path) -> None:
    """Sees to it that a resumed run goes on as it began, but for where it stops."""
    free = {"file", "data_dir", "epochs", "patience", "time_limit", "steps", "lr_steps", "seconds"}
    if then.search is not None and then.search.work is None:
        free.add("work")  # which the search that was begun has settled, and knows
    for part in ("data", "search") if then.flow is None else ("data", "flow", "training"):
        old, new = _flat(getattr(then, part)), _flat(getattr(config, part))
        for name, value in new.items():
            if name not in free and value != old.get(name):
                raise ValueError(
                    f"--resume: {name} is {value}, but {directory} was begun with {old.get(name)}"
                )


def _flat(section: Any) -> dict[str, Any]:
    values = asdict(section)
    return {**values, **values.pop("arguments", {})}
