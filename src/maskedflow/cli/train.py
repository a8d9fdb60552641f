"""``maskedflow train``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .evaluate import report
from .options import TrainOptions
from .output import note, watched
from .processes import joined

if TYPE_CHECKING:
    import torch

    from maskedflow.runs import Run, RunConfig
    from maskedflow.training import Ranks

AUTO = ("mnist", "cifar10")


def train(*, options: TrainOptions | None = None) -> None:
    """Train a flow, evaluate it on the test rows, and draw samples.

    One of --dataset, --data and --auto says on what. The run lies in OUT/NAME;
    an earlier run there is not lost but moved to OUT/NAME.1, and so on.
    Processes that torchrun starts train one flow together.
    """
    options = options or TrainOptions()
    given = [f"--{name}" for name in ("dataset", "data", "auto") if getattr(options, name)]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ValueError(f"expected one of --dataset, --data and --auto, got {found}")
    with joined():
        if options.auto:
            for name in AUTO:
                _train(replace(options, auto=False, dataset=name))
        else:
            _train(options)


def said(options: TrainOptions) -> dict[str, Any]:
    """The options that were said, by name, but for the engine, on which nothing depends."""
    values = [(f.name, getattr(options, f.name), f.default) for f in fields(options)]
    return {name: value for name, value, default in values if value != default and name != "engine"}


def _train(options: TrainOptions) -> None:
    """Makes one run."""
    if options.tensorboard and find_spec("tensorboard") is None:
        raise ValueError("--tensorboard: not here; pip install 'maskedflow[tensorboard]'")

    from maskedflow.runs import RunConfig
    from maskedflow.runs.facts import told_weights
    from maskedflow.runs.folder import in_place_of_earlier
    from maskedflow.runs.prepare import prepare, recorded
    from maskedflow.sources import table_name
    from maskedflow.training import Ranks, device_of

    ranks = Ranks()
    source, asked = options.dataset or options.data, said(options)
    assert source is not None
    device = device_of(asked.pop("device", "cpu"))  # no part of the record's options
    directory = (options.out or Path("maf_results")) / table_name(Path(source))
    record = directory / "config.toml"
    earlier = RunConfig.read(record) if options.resume and record.is_file() else None
    if earlier is not None:
        asked = recorded(asked, earlier, directory)
    with ranks.in_turn() if options.download else nullcontext():
        dataset, config, notes = prepare(asked, directory, earlier)
    _check_search(options, config, ranks)
    ranks.wait()  # until all have read what may now be moved
    if options.resume and earlier is None:
        notes.insert(0, f"no run in {directory} to resume, beginning one")
    for one in notes:
        note(one)
    for told in told_weights(config.data).values():
        print(f"weights: {told}")
    writing = in_place_of_earlier(directory, note, resume=options.resume)
    with writing if ranks.is_first else nullcontext():
        try:
            if config.search is None:
                run = _fit(directory, config, dataset, options, device)
            else:
                with _searching(options, ranks) as searches:
                    if not searches:
                        return
                    run = _search(directory, config, dataset, options.resume)
        except KeyboardInterrupt as error:
            if (directory / "checkpoints" / "latest.safetensors").is_file():
                error.add_note(f"to go on: {_resuming(options)}")
            raise
        if ranks.is_first:
            report(run, dataset, page=options.report)


def _check_search(options: TrainOptions, config: RunConfig, ranks: Ranks) -> None:
    """Refuses what a search cannot do, and what only a search can."""
    if config.search is None:
        if options.engine is not None:
            raise ValueError(
                f"--engine {options.engine}: spreads the members of a search; expected --flow auto"
            )
        return
    if options.device not in (None, "auto", "cpu"):
        raise ValueError(f"--device {options.device}: a search computes on the CPU; leave it out")
    if options.engine is not None and ranks.size > 1:
        raise ValueError(
            f"--engine {options.engine}: expected no torchrun, which spreads them, too"
        )


def _resuming(options: TrainOptions) -> str:
    """The command that goes on with a run, whose record has all other options."""
    words = ["maskedflow", "train", "--resume"]
    for name in ("dataset", "data", "out"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)


@contextmanager
def _searching(options: TrainOptions, ranks: Ranks) -> Iterator[bool]:
    """Spreads members of a search over who is there; says whether this process searches."""
    if options.engine is None:
        from maskedflow.tables.processes import searching

        with searching(ranks) as searches:
            yield searches
    else:
        from maskedflow.interop.ray import searching as ray_searching

        with ray_searching():
            yield True


def _search(directory: Path, config: RunConfig, table: Any, resume: bool) -> Run:
    """Searches the density of a table."""
    from maskedflow.runs import search_run, write_run
    from maskedflow.tables import FittedTable

    search = config.search
    assert search is not None
    print(f"{table.schema}\n")
    within = f", for about {search.time_limit:g} s at most" if search.time_limit else ""
    print(
        f"fitting {search.flow} to {config.name}: {table.rows[0]:,} rows of "
        f"{len(table.columns)} columns{within}",
        flush=True,
    )
    with watched(f"fitting {search.flow}{within}") as tell:
        run = search_run(directory, config, table, tell, resume=resume)
    write_run(run)
    assert run.config.search is not None
    print(f"fitted in {run.config.search.seconds:.0f} s")
    if cast(FittedTable, run.density).is_interrupted:
        note("interrupted: this is the best that was found until then; --resume goes on")
    return run


def _fit(
    directory: Path, config: RunConfig, dataset: Any, options: TrainOptions, device: torch.device
) -> Run:
    """Trains a flow."""
    from maskedflow.runs import train_run

    rows = f"{dataset.rows[0]:,} rows of {dataset.features} features"
    print(f"training {config.options['flow']} on {dataset.name}: {rows}", flush=True)
    run, history = train_run(
        directory,
        config,
        dataset,
        resume=options.resume,
        progress=True,
        tensorboard=options.tensorboard,
        device=device,
    )
    print(
        f"stopped by {history.stopped_because} after {len(history.records)} epochs and "
        f"{sum(history.seconds):.0f} s; epoch {history.best_epoch} is the best"
    )
    return run
