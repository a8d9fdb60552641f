"""``maskedflow train``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskedflow.recipes import recipe

from .options import TrainOptions
from .settings import SHAPES, Settings, settle
from .tables import ADVICE, why_estimator

if TYPE_CHECKING:
    from maskedflow.data import Dataset
    from maskedflow.runs import DataConfig, FlowConfig, RunConfig
    from maskedflow.training import TrainConfig

__all__ = ["train"]

AUTO = ("mnist", "cifar10")


def train(*, options: TrainOptions | None = None) -> None:
    """Train a flow, evaluate it on the test rows, and draw samples.

    One of --dataset, --data and --auto says on what. The run lies in OUT/NAME;
    an earlier run there is not lost but moved to OUT/NAME.1, and so on.
    """
    options = options or TrainOptions()
    given = [f"--{name}" for name in ("dataset", "data", "auto") if getattr(options, name)]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ValueError(f"expected one of --dataset, --data and --auto, got {found}")
    if options.auto:
        for name in AUTO:
            _train(replace(options, auto=False, dataset=name))
    else:
        _train(options)


def _train(options: TrainOptions) -> None:
    """Trains one run."""
    source = options.dataset or options.data
    assert source is not None
    directory = (options.out or Path("maf_results")) / Path(source).stem
    if why_estimator(options):
        _train_table(options, directory)
        return
    earlier = _earlier(directory) if options.resume else None
    if earlier is not None:
        options = _recorded(options, earlier)
    settings = settle(options)
    context = _context(options)
    if context and options.data is None:
        raise ValueError(f"--context {options.context}: expected --data FILE with these columns")
    if settings.labels and options.data is not None:
        raise ValueError("--labels: a table of your own has none; name columns with --context")

    if options.time is not None or options.window is not None:
        _check_series(options, settings)
    stream = _streamed(options)
    if options.tensorboard and find_spec("tensorboard") is None:
        raise ValueError("--tensorboard: not here; pip install 'maskedflow[tensorboard]'")

    dataset = _open(
        dataset=options.dataset,
        file=options.data,
        data_dir=options.data_dir,
        context=context,
        labels=settings.labels,
        seed=settings.seed,
        download=options.download,
        time=options.time,
        window=options.window,
        stream=stream,
        dealing="values" if earlier is None else earlier.data.dealing,
        continuous=bool(options.continuous),
    )
    if earlier is not None and not earlier.flow.wide:  # as all runs were once
        dataset = dataset.in_float32()
    settings = settle(options, dataset.features)
    config = _config(options, settings, dataset)
    for note in (*dataset.notes, config.flow.note):
        if note:
            print(f"note: {note}", file=sys.stderr)
    if options.data is not None and options.flow is None and not (options.time or stream):
        chosen = f"{settings.flow} was taken for one column; " if dataset.features == 1 else ""
        print(f"note: {chosen}--flow auto would choose among densities by itself", file=sys.stderr)
    if earlier is not None:
        _check_same(config, earlier, directory)
    with _in_place_of_earlier(directory, options.resume):
        _fit(directory, config, dataset, options)


def _fit(directory: Path, config: RunConfig, dataset: Dataset, options: TrainOptions) -> None:
    """Trains and evaluates what has been settled."""
    from maskedflow.runs import rows_of, told_distinct, train_run

    if copies := told_distinct(sum(rows_of(dataset)), dataset.distinct):
        print(f"note: {dataset.name}{copies}", file=sys.stderr)
    rows = f"{rows_of(dataset)[0]:,} rows of {dataset.features} features"
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

    from .evaluate import report

    report(run, dataset)
    if options.report:
        from maskedflow.report import run_report

        print(f"report in {run_report(run, dataset)}")


def _train_table(options: TrainOptions, directory: Path) -> None:
    """Fits an estimator to a mixed table."""
    from maskedflow.estimator import write_run
    from maskedflow.files import exclusive

    from .tables import report, train_table

    with exclusive(directory):
        run, table = train_table(options, directory, _context(options))
        with _in_place_of_earlier(directory):
            write_run(run)
            report(run, table)
            if options.report:
                from maskedflow.estimator import table_report

                print(f"report in {table_report(run, table)}")


def _context(options: TrainOptions) -> tuple[str, ...]:
    return tuple(name.strip() for name in options.context.split(",")) if options.context else ()


def _check_series(options: TrainOptions, settings: Settings) -> None:
    """Refuses what does not go with a time series."""
    if options.time is None:
        raise ValueError(f"--window {options.window}: expected --time COLUMN with it")
    if options.data is None:
        raise ValueError(f"--time {options.time}: expected --data FILE with this column")
    if options.context is not None:
        raise ValueError("--context: a time series is conditional on its past; leave it out")
    if settings.batch_norm:
        raise ValueError("--batch_norm: it would tell a step of later ones; leave it out")


def _streamed(options: TrainOptions) -> bool:
    """Whether the table stays on disk: as was said, or if it is large for this machine's memory."""
    if options.data is None or options.time is not None:
        if options.stream:
            raise ValueError("--stream: expected --data FILE, no time series, to leave on disk")
        return False
    if options.stream is not None:
        return options.stream

    from maskedflow.data import too_large

    if too_large(options.data):
        print(f"note: {options.data} is large for this memory and stays on disk", file=sys.stderr)
        return True
    return False


def _config(options: TrainOptions, settings: Settings, dataset: Dataset) -> RunConfig:
    """The record of the run that was asked for."""
    from maskedflow.runs import DataConfig, FlowConfig, RunConfig, describe, rows_of
    from maskedflow.training import TrainConfig

    data_dir = None if options.data_dir is None else str(options.data_dir.resolve())
    file = None if options.data is None else str(options.data.resolve())
    data = DataConfig(
        dataset=options.dataset,
        file=file,
        data_dir=data_dir,
        labels=settings.labels,
        seed=settings.seed,
        columns=dataset.columns,
        context_columns=dataset.context_columns,
        image_shape=dataset.image_shape,
        levels=dataset.levels,
        rows=rows_of(dataset),
        time=options.time,
        window=dataset.window,
        stream=dataset.streamed is not None,
        dealing=dataset.dealing,
        distinct=dataset.distinct,
    )
    made = recipe(settings.flow)
    chosen = asdict(settings)
    name, arguments = (
        made.constructor,
        made.build(dataset.features, dataset.context_features, chosen, dataset.image_shape),
    )
    if dataset.window is not None:
        name = "TemporalMAF"
        arguments |= {"steps": dataset.window, "hidden_size": settings.hidden_dim}
    preprocessing, embedding = dataset.preprocessing(), dataset.embedding()
    flow = FlowConfig(
        name=name,
        arguments=arguments,
        seed=settings.seed,
        preprocessing=tuple(describe(t) for t in preprocessing.transforms) if preprocessing else (),
        embedding=describe(embedding) if embedding else None,
    )
    names = {field.name for field in fields(TrainConfig)}
    training = TrainConfig(**{name: value for name, value in chosen.items() if name in names})
    asked: dict[str, Any] = {"dataset": options.dataset, "data": file, "context": options.context}
    takes = made.shaped_by(dataset.context_features > 0)
    told = {name: v for name, v in chosen.items() if name not in SHAPES or name in takes}
    asked["stream"] = dataset.streamed is not None
    series = {"time": options.time, "window": dataset.window}
    asked |= {**series, "data_dir": data_dir, "continuous": bool(options.continuous)}
    return RunConfig(dataset.name, data, flow, training, {**asked, **told})


def _earlier(directory: Path) -> RunConfig | None:
    """The record of the run to go on with, if there is one."""
    from maskedflow.estimator import TableConfig
    from maskedflow.runs import RunConfig

    path = directory / "config.toml"
    if TableConfig.is_at(path):
        raise ValueError(f"--resume: the estimator in {directory} is fitted as a whole")
    if path.is_file():
        return RunConfig.read(path)
    print(f"note: no run in {directory} to resume, beginning one", file=sys.stderr)
    return None


def _recorded(options: TrainOptions, earlier: RunConfig) -> TrainOptions:
    """The options of an earlier run, wherever the command line is silent."""
    then = {**earlier.options, "continuous": earlier.flow.continuous}
    if options.time_limit is not None or options.epochs is not None:
        for name in ("steps", "lr_steps"):  # those that there was time for
            then.pop(name, None)
    then.update({name: Path(then[name]) for name in ("data", "data_dir") if name in then})
    return replace(options, **{k: v for k, v in then.items() if getattr(options, k, "") is None})


def _check_same(config: RunConfig, then: RunConfig, directory: Path) -> None:
    """Sees to it that a resumed run goes on as it began, but for where it stops."""
    free = {"file", "data_dir", "epochs", "patience", "time_limit", "steps", "lr_steps"}
    for part in ("data", "flow", "training"):
        old, new = _flat(getattr(then, part)), _flat(getattr(config, part))
        for name, value in new.items():
            if name not in free and value != old.get(name):
                raise ValueError(
                    f"--resume: {name} is {value}, but {directory} was begun with {old.get(name)}"
                )


def _flat(section: DataConfig | FlowConfig | TrainConfig) -> dict[str, Any]:
    values = asdict(section)
    return {**values, **values.pop("arguments", {})}


@contextmanager
def _in_place_of_earlier(directory: Path, resume: bool = False) -> Iterator[None]:
    """Moves an earlier run out of the way; whoever forgot --resume can move it back.

    If nothing comes of the new one, not even first weights, all is put back as it was.
    """
    from maskedflow.files import exclusive

    kept = [directory / "checkpoints" / "latest.safetensors", directory / "estimator.safetensors"]
    fresh = not directory.exists() or not any(directory.iterdir())
    with exclusive(directory):
        if resume and kept[0].exists():
            yield
            return
        earlier = any(path.exists() for path in (kept[0].parent, kept[1]))
        aside = _set_aside(directory) if earlier else None
        try:
            with exclusive(directory):  # the new one, if the earlier one was moved
                yield
        except BaseException:
            if (fresh or aside is not None) and not any(file.exists() for file in kept):
                shutil.rmtree(directory, ignore_errors=True)
                if aside is not None:
                    aside.rename(directory)
                    print(f"note: the earlier run is back in {directory}", file=sys.stderr)
            raise


def _set_aside(directory: Path) -> Path:
    """Gives a run's folder another name, and tells it."""
    number = 1
    while (aside := directory.with_name(f"{directory.name}.{number}")).exists():
        number += 1
    directory.rename(aside)
    print(f"note: the earlier run in {directory} is now {aside}", file=sys.stderr)
    return aside


def _open(**asked: Any) -> Dataset:
    """Opens the data, and says how to go on where a cell is no number."""
    from maskedflow.runs import open_data
    from maskedflow.sources import CellError

    try:
        return open_data(**asked)
    except CellError as error:
        raise ValueError(f"{error}{ADVICE[error.fault]}") from None
