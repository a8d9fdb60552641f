"""``maskedflow sample``."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from .csv import CsvOptions, Table, dialect_of, opened
from .options import Device
from .output import (
    check_apart,
    check_ending,
    check_engine,
    tell_written,
    told,
    tracked,
    write_parts,
)

if TYPE_CHECKING:
    from maskedflow.runs import Run
    from maskedflow.sources import Source

STEPS = 24


def sample(
    run: Path,
    /,
    *,
    number: Annotated[PositiveInt | None, Parameter(name=["-n", "--number"])] = None,
    output: Annotated[
        Path | None, Parameter(name=["-o", "--output"], allow_leading_hyphen=True)
    ] = None,
    context: Table | None = None,
    given: Table | None = None,
    steps: PositiveInt | None = None,
    data: Table | None = None,
    seed: NonNegativeInt = 0,
    shard: str | None = None,
    within: bool = False,
    engine: Literal["ray"] | None = None,
    device: Device = "cpu",
    csv: CsvOptions | None = None,
) -> None:
    """Draw rows from a run's density, in the units of its data.

    NUMBER may be of any size. With --shard 2/5 the second of five pieces of the
    rows is drawn; written one after another, by cat say, the pieces are byte for
    byte the whole as CSV: the first begins with the names, the others have none.

    Into a folder, a name without an ending, go all pieces, as .parquet files whose
    names have the rows' order; --engine ray has them written by the workers of a Ray
    cluster, or by as many as this machine has cores.

    With --context each row of that table gets NUMBER samples, and its columns are
    written beside them.

    With --given the rows of that table are completed, NUMBER times each: columns
    that it has not, and cells of it that are empty, are drawn given the others, and
    those of a context are found there, too. An empty cell stands for one that is
    there and is not known, in a run of --missing model as well; a column that is not
    there is drawn with its missing cells. Draws are exact if what is unknown comes
    last in the order of categories, angles and numbers, else resampled from 1,000
    candidates, and a note tells of how many rows these were too few.

    A note tells how many rows of a flow have a log-density far below those of all
    training rows. With --within others are drawn in their places, and the note says
    what part of the density is left.

    The run of a time series continues it instead: NUMBER forecasts of STEPS rows.

    Args:
        run: The run's folder, such as maf_results/power.
        number: Rows to draw, for each context or row that is given. [default: 1 with --given]
        output: File to write: .csv, .tsv, .parquet, .npy, or a picture, .png; - is standard output;
            or a folder. [required]
        context: Table with the columns that the flow is conditional on, found by name.
        given: Table with some of the columns, found by name, to draw the others.
        steps: For a time series, the rows of a forecast. [default: 24]
        data: For a time series, the table to continue. [default: the one it was trained on]
        seed: Seed of the draws. [default: 0]
        shard: Which piece to draw of how many, such as 1/4.
        within: Leave out rows whose log-density is far below those of all training rows.
        engine: What spreads the pieces over processes: ray.
        device: Where a flow draws: cpu, cuda, mps or auto. Draws by seed are those of one device.
            [default: cpu]
        csv: How CSV files are written.
    """
    if number is None and given is None:
        raise ValueError("-n: expected the number of rows to draw")
    if output is None:
        raise ValueError("-o: expected a file to write")
    folder = check_engine(output, engine, shard, device, given or context)
    if not folder:
        check_ending(output, ".csv", ".tsv", ".parquet", ".npy", ".png")
        check_apart(output, context, given, data)
    if output.suffix == ".png" and shard is not None:
        raise ValueError(f"--shard {shard}: a picture shows all rows; leave it out")
    if given is not None and within:
        raise ValueError("--within: --given completes rows, whatever their density; leave it out")
    if given is not None and context is not None:
        raise ValueError(f"--context {context}: the table of --given has the context, too")
    if csv is not None and context is None and given is None and data is None:
        raise ValueError("options of CSV files: expected --context, --given or --data with them")

    from maskedflow.runs import load_run, sample_given_run, sample_run
    from maskedflow.runs.parts import complete_parts, sample_parts
    from maskedflow.runs.sampling import ROWS
    from maskedflow.sources import Shard, open_source, write_batches

    piece = Shard() if shard is None else Shard.parse(shard)
    start = time.monotonic()
    number, found = number or 1, load_run(run).to(device)
    if found.config.data.time is not None:
        _check_forecast(output, folder, context, given, shard, within)
        _forecast(found, number, output, steps or STEPS, data and opened(data, csv), seed)
        return
    if steps is not None or data is not None:
        raise ValueError(f"--steps, --data: expected the run of a time series, {run} is none")
    _check_draws(found, output, context, given)
    dialect, place = dialect_of(csv), run.absolute()
    if given is not None:
        table = open_source(opened(given, csv))
        inputs = table.count() if folder else 0
        rows, blocks = number * inputs, -(-inputs // ROWS)
        stream: Any = partial(sample_given_run, found, table, number, seed=seed, shard=piece)
        job = partial(complete_parts, place, given.absolute(), number, dialect, seed=seed)
    else:
        conditions = None if context is None else found.read_context(opened(context, csv))
        if output.suffix == ".png":
            _picture(found, number, conditions, output, seed, within=within)
            return
        rows = number if conditions is None else number * len(conditions)
        blocks = -(-rows // ROWS)
        where = None if context is None else context.absolute()
        stream = partial(
            sample_run, found, number, conditions, seed=seed, shard=piece, within=within
        )
        job = partial(sample_parts, place, number, where, dialect, seed=seed, within=within)
    with told():
        if folder:
            total = write_parts(output, job, rows, blocks, engine)
        else:
            schema, batches = stream()
            bar = tracked(batches, rows // piece.of or None)
            total = write_batches(output, schema, bar, header=piece.number == 1)
    tell_written(total, output, start)


def _check_forecast(
    output: Path,
    folder: bool,
    context: Path | None,
    given: Path | None,
    shard: str | None,
    within: bool,
) -> None:
    """Refuses what does not go with the run of a time series."""
    if context is not None:
        raise ValueError(f"--context {context}: the run of a time series takes --data")
    if given is not None:
        raise ValueError(f"--given {given}: the run of a time series takes --data")
    if shard is not None:
        raise ValueError(f"--shard {shard}: forecasts come as a whole; leave it out")
    if folder:
        raise ValueError(f"-o {output}: forecasts come as a whole; expected a file")
    if within:
        raise ValueError("--within: forecasts are drawn step by step; leave it out")


def _check_draws(run: Run, output: Path, context: Path | None, given: Path | None) -> None:
    """Refuses what does not go with a run, or lacks."""
    if run.config.search is not None and output.suffix in (".npy", ".png"):
        raise ValueError(f"-o {output}: of a mixed table, expected a file ending in .csv, .parquet")
    names = run.context_columns
    if given is None and names and context is None:
        raise ValueError(
            f"--context: {run.directory} is conditional on {', '.join(names)}; name a table"
        )
    if context is not None and not names:
        raise ValueError(f"--context {context}: the density of {run.directory} has no context")


def _picture(
    run: Run, number: int, conditions: Any, output: Path, seed: int, *, within: bool
) -> None:
    """Draws rows, and a picture of them."""
    import torch

    from maskedflow.report import samples_picture, save
    from maskedflow.runs import draw_batches

    with told():
        blocks = draw_batches(run, number, conditions, seed=seed, within=within)
        drawn = torch.cat([x for x, _ in blocks])
    save(samples_picture(run.to("cpu"), drawn), output)
    print(f"{len(drawn):,} rows in {output}")


def _forecast(
    run: Run, number: int, output: Path, steps: int, data: Path | Source | None, seed: int
) -> None:
    """Writes forecasts that continue a time series."""
    from maskedflow.data import read_series, write_forecasts
    from maskedflow.runs import forecast
    from maskedflow.sources import open_source

    source = run.config.data
    if output.suffix == ".npy":
        raise ValueError(f"-o {output}: forecasts have times; expected .csv, .parquet or .png")
    assert source.time is not None
    if data is None:
        data = open_source(source.file or "", source.dialect)
    series = read_series(data, source.time, run.columns)
    samples = forecast(run, series, steps, number, seed)
    if output.suffix == ".png":
        from maskedflow.report import forecast_picture, save

        save(forecast_picture(run.to("cpu"), series, samples), output)
        total = number * steps
    else:
        times = series.following(steps)
        total = write_forecasts(output, source.time, times, run.columns, samples)
    tell_written(total, output)
