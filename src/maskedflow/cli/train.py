"""``maskedflow train``."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .evaluate import report
from .options import TrainOptions
from .output import note, watched
from .processes import joined

if TYPE_CHECKING:
    from maskedflow.runs import Run, RunConfig

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
    """The options that were said, by name."""
    values = [(f.name, getattr(options, f.name), f.default) for f in fields(options)]
    return {name: value for name, value, default in values if value != default}


def _train(options: TrainOptions) -> None:
    """Makes one run."""
    if options.tensorboard and find_spec("tensorboard") is None:
        raise ValueError("--tensorboard: not here; pip install 'maskedflow[tensorboard]'")

    from maskedflow.files import exclusive
    from maskedflow.runs import RunConfig, write_run
    from maskedflow.runs.folder import in_place_of_earlier
    from maskedflow.runs.prepare import prepare, recorded
    from maskedflow.runs.summary import told_weights
    from maskedflow.training import Ranks

    ranks = Ranks()
    source, asked = options.dataset or options.data, said(options)
    assert source is not None
    directory = (options.out or Path("maf_results")) / Path(source).stem
    record = directory / "config.toml"
    earlier = RunConfig.read(record) if options.resume and record.is_file() else None
    if earlier is not None:
        asked = recorded(asked, earlier, directory)
    with ranks.in_turn() if options.download else nullcontext():
        dataset, config, notes = prepare(asked, directory, earlier)
    ranks.wait()  # until all have read what may now be moved
    if options.resume and earlier is None:
        notes.insert(0, f"no run in {directory} to resume, beginning one")
    for one in notes:
        note(one)
    for told in told_weights(config.data).values():
        print(f"weights: {told}")
    if config.search is not None:
        if ranks.size > 1:
            raise ValueError(
                f"--flow {config.search.flow}: searches in one process, whose threads train its "
                "members, and not under torchrun"
            )
        with exclusive(directory):
            run = _search(directory, config, dataset)
            with in_place_of_earlier(directory, note):
                write_run(run)
                report(run, dataset, page=options.report)
    else:
        writing = in_place_of_earlier(directory, note, resume=options.resume)
        with writing if ranks.is_first else nullcontext():
            run = _fit(directory, config, dataset, options)
            if ranks.is_first:
                report(run, dataset, page=options.report)


def _search(directory: Path, config: RunConfig, table: Any) -> Run:
    """Searches the density of a table."""
    from maskedflow.runs import search_run
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
        run = search_run(directory, config, table, tell)
    assert run.config.search is not None
    print(f"fitted in {run.config.search.seconds:.0f} s")
    if cast(FittedTable, run.density).is_interrupted:
        note("interrupted: this is the best that was found until then")
    return run


def _fit(directory: Path, config: RunConfig, dataset: Any, options: TrainOptions) -> Run:
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
    )
    print(
        f"stopped by {history.stopped_because} after {len(history.records)} epochs and "
        f"{sum(history.seconds):.0f} s; epoch {history.best_epoch} is the best"
    )
    return run
