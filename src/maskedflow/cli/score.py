"""``maskedflow score``."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from .csv import CsvOptions, Table, dialect_of, opened
from .options import Device
from .output import (
    check_apart,
    check_ending,
    check_engine,
    note,
    tell_written,
    told,
    tracked,
    write_parts,
)


def score(
    run: Path,
    file: Table,
    /,
    *,
    output: Annotated[Path, Parameter(name=["-o", "--output"], allow_leading_hyphen=True)],
    keep: str | None = None,
    shard: str | None = None,
    explain: bool = False,
    tail: bool = False,
    given: str | None = None,
    engine: Literal["ray"] | None = None,
    device: Device = "cpu",
    csv: CsvOptions | None = None,
) -> None:
    """Write the log-density of each row of a table, in nats, in the table's own units.

    The table is read in blocks, so it may be of any size, and rows keep their
    order. Columns are found by name, those of the context too; others may be there.

    With --shard 2/5 the second of five pieces is scored. Written one after another,
    by cat say, the pieces are byte for byte the whole as CSV: the first begins with
    the names, the others have none.

    Into a folder, a name without an ending, go all pieces, as .parquet files whose
    names have the rows' order; --engine ray has them written by the workers of a Ray
    cluster, or by as many as this machine has cores.

    A run of train --error scores rows as measured if the table has their errors,
    and else by the density without noise.

    Of a mixed table, what a column cannot hold, such as a new category, has minus
    infinity; and a row with missing cells has nan in a run of --missing drop.

    --explain tells which cells make a row odd: of each column its nats, the
    log-density given the columns before it, then log_prob, which is their sum, the
    largest standard error of these nats, and of a row of minus infinity the reason:
    which cell, what was expected, what was found. --given a,b scores the other
    columns given these, and tells the standard error. Both are of runs of --flow
    auto. Where draws are too few, a note says so.

    Args:
        run: The run's folder, such as maf_results/power.
        file: The table, in a file of any kind that train reads, or a folder of .parquet files, in
            the order of their names; or an array of rows or images, .npy; - is standard input.
        output: File to write, with a column log_prob: .csv, .tsv, .parquet or .npy; - is standard
            output; or a folder. A CSV file is plain, whatever the table's: commas, decimal points,
            UTF-8.
        keep: Columns to carry along before log_prob, separated by commas; or all.
        shard: Which piece to score of how many, such as 1/4.
        explain: Write what each column adds to log_prob, and why a row cannot be.
        tail: Write tail_probability too, how much of the density is no likelier.
        given: Columns that are given, separated by commas; log_prob is of the others.
        engine: What spreads the pieces over processes: ray.
        device: Where densities of a flow are computed: cpu, cuda, mps or auto. [default: cpu]
        csv: How CSV files are written.
    """
    folder = check_engine(output, engine, shard, device, file)
    if not folder:
        check_ending(output, ".csv", ".tsv", ".parquet", ".npy")
        check_apart(output, file)

    from maskedflow.runs import load_run, score_run
    from maskedflow.runs.parts import score_parts
    from maskedflow.runs.scoring import ROWS
    from maskedflow.sources import Shard, write_batches

    piece = None if shard is None else Shard.parse(shard)
    start = time.monotonic()
    options: dict[str, Any] = {
        "keep": None if keep == "all" else _names(keep or ""),
        "explain": explain,
        "tail": tail,
        "given": None if given is None else _names(given),
    }
    scores = score_run(
        load_run(run).to(device),
        opened(file, csv),
        shard=Shard() if folder else piece,
        **options,
    )
    if scores.about:
        note(scores.about)
    if folder:
        assert scores.rows is not None
        job = partial(
            score_parts, run.absolute(), file.absolute(), dialect=dialect_of(csv), **options
        )
        with told():
            rows = write_parts(output, job, scores.rows, -(-scores.rows // ROWS), engine)
        tell_written(rows, output, start)
        return
    batches = tracked(scores.batches, scores.rows)
    header = piece is None or piece.number == 1
    with told():
        rows = write_batches(output, scores.schema, batches, header=header)
    tell_written(rows, output, start)


def _names(text: str) -> tuple[str, ...]:
    """Names of columns that commas separate."""
    return tuple(name.strip() for name in text.split(",")) if text else ()
