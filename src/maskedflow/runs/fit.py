"""Making a run: a flow that is trained, or the density of a table that is searched."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from maskedflow import training
from maskedflow.data import Dataset, MixedTable
from maskedflow.files import exclusive, write_text
from maskedflow.flows import Flow
from maskedflow.tables import FittedTable, Tell
from maskedflow.training import History
from maskedflow.training.device import Device, described, device_of

from .build import build_flow, start_at_data
from .config import RunConfig
from .density import FlowDensity
from .level import level_of
from .measured import build_measured, gaussian_of, without_errors
from .run import ESTIMATOR, MEMBERS, TRACE, Run, load_run

__all__ = ["search_run", "train_run", "write_run"]


def search_run(
    directory: Path,
    config: RunConfig,
    table: MixedTable,
    tell: Tell | None = None,
    *,
    resume: bool = False,
) -> Run:
    """Writes the record, searches the density of a table; :func:`write_run` writes what was found.

    What is fitted on the way is kept in `members`, until all of it is there.

    Args:
        directory: Where the run will lie.
        config: The record. The work that was chosen, and the seconds that it took, are recorded, so
            that the record leads to the same density.
        table: The table.
        tell: Called after each step of the search, as in :func:`maskedflow.tables.fit_density`.
        resume: Whether to go on with a search that was killed or interrupted: the density is then
            that of one that never stopped, and the seconds are those of the last session. One that
            came to its end is opened.

    Raises:
        ValueError: If that was another search, or another process writes into this folder.
    """
    search, members = config.search, directory / MEMBERS
    assert search is not None
    if resume and (directory / ESTIMATOR).is_file():
        found = load_run(directory)
        if not cast(FittedTable, found.density).is_interrupted:
            return found
    start = time.monotonic()
    # An estimator with this `random_state` draws its seed so, and finds the same density.
    seed = int(np.random.RandomState(config.data.seed).randint(2**31))
    with exclusive(directory):
        if not resume:
            shutil.rmtree(members, ignore_errors=True)
        config.write(directory / "config.toml")
        density = FittedTable.fit(
            table.train.x,
            table.train.context,
            schema=table.schema,
            weight=None if table.train.weight is None else table.train.weight.numpy(),
            flow=search.flow,
            time_limit=search.time_limit,
            work=search.work,
            seed=seed,
            tell=tell,
            directory=members,
        )
    work = float(density.density.plan["work"])
    taken = replace(search, work=work, seconds=round(time.monotonic() - start, 1))
    config = replace(config, search=taken, options={**config.options, "work": work})
    return Run(directory, config, density)


def write_run(run: Run) -> None:
    """Writes record, schema and density of a search into the run's folder."""
    density = cast(FittedTable, run.density)
    run.samples.parent.mkdir(parents=True, exist_ok=True)
    write_text(run.directory / "schema.toml", density.schema.to_toml())
    run.config.write(run.directory / "config.toml")
    density.save(run.directory / ESTIMATOR)
    if not density.is_interrupted:
        shutil.rmtree(run.directory / MEMBERS, ignore_errors=True)


def train_run(
    directory: Path,
    config: RunConfig,
    dataset: Dataset,
    *,
    resume: bool = False,
    progress: bool = False,
    tensorboard: bool = False,
    initialise: Callable[[Flow, torch.Generator], None] | None = None,
    device: Device = "cpu",
) -> tuple[Run, History]:
    """Writes the record, trains the flow, and returns the run with its best weights.

    Of processes that train together, the first one writes.

    Args:
        directory: The run's folder, made when missing.
        config: The record.
        dataset: The rows, as the record says.
        resume: Whether to go on from `checkpoints/latest.safetensors`.
        progress: Whether to draw a progress bar.
        tensorboard: Whether to write TensorBoard's event files into `logs` too.
        initialise: Draws other first weights, from a generator of the record's seed.
        device: Where the flow is trained, and stays, as of :func:`maskedflow.training.fit`. The
            record tells another than the CPU beside the versions; no run needs it to be opened.

    Raises:
        ValueError: If the record cannot be read again, if another process trains in this folder, or
            if the device is not there.
    """
    place = device_of(device)
    if place.type != "cpu":
        config = replace(config, versions={**config.versions, "device": described(place)})
    digest = RunConfig.from_toml(config.to_toml()).digest
    recorded = config.flow
    assert recorded is not None
    assert config.training is not None
    flow = build_flow(recorded, dataset.preprocessing(), dataset.embedding())
    if initialise is not None and isinstance(flow, Flow):
        initialise(flow, torch.Generator().manual_seed(recorded.seed))
    begun = resume and (directory / "checkpoints" / "latest.safetensors").is_file()
    if isinstance(flow, Flow) and not begun:
        start_at_data(flow, without_errors(dataset.train, dataset), recorded.seed)
    measured = build_measured(flow, config.data, gaussian_of(dataset) if dataset.errors else None)
    trace = dataset.fingerprints()
    train, validation = dataset.epochs()
    told = {"name": config.name, "versions": config.versions}
    is_first = training.Ranks().is_first
    with exclusive(directory) if is_first else nullcontext():
        if is_first:
            config.write(directory / "config.toml")
        history = training.fit(
            measured or flow,
            train,
            validation,
            config.training,
            directory=directory,
            resume=resume,
            metadata={**told, "record": digest, TRACE: trace.to_plain()},
            progress=progress,
            tensorboard=tensorboard,
            device=place,
        )
        if config.training.time_limit is not None and config.training.steps is None:
            # So that the record leads to this run again, on a machine of another pace too.
            taken: dict[str, Any] = {"steps": history.steps, "lr_steps": history.lr_steps}
            config = replace(
                config,
                training=replace(config.training, **taken),
                options={**config.options, **taken},
            )
        density = FlowDensity(flow.eval(), recorded, config.data, trace, measured)
        if is_first and config.data.time is None:
            level = level_of(density, without_errors(dataset.train, dataset))
            config = replace(config, level=level)
        if is_first:
            config.write(directory / "config.toml")
    return Run(directory, config, density), history
