"""Mixed tables on the command line: what `train` and `evaluate` do with a density estimator."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from .notes import tell_seen
from .options import TrainOptions
from .progress import waiting

if TYPE_CHECKING:
    from maskedflow.estimator import MixedTable, TableRun

__all__ = ["report", "train_table", "why_estimator"]

SAMPLES = 1000

ADVICE = {
    "missing": "; --missing drop leaves out such rows, --missing model gives them a probability",
    "kind": "; --flow auto takes columns of every kind",
    "notation": "",
}
"""What to do about a cell that is no number."""

TAKEN = ("data", "flow", "schema", "missing", "time_limit", "work", "context", "seed", "out")
"""The options that an estimator takes; others shape a single flow or its training."""


def why_estimator(options: TrainOptions) -> str | None:
    """What asks for a density estimator: an option, or the table itself; None if nothing does.

    Raises:
        ValueError: If an option asks for it and another does not go with it.
    """
    alien = [
        f"--{field.name}"
        for field in fields(options)
        if field.name not in (*TAKEN, "config", "report")
        and getattr(options, field.name) != field.default
    ]
    asking = {
        "--flow auto": options.flow == "auto",
        "--schema": options.schema is not None,
        "--missing": options.missing is not None,
        "--work": options.work is not None,
    }
    why = next((name for name, asks in asking.items() if asks), None)
    if why is None:
        if options.data is None or options.flow is not None or alien:
            return None
        return None if _all_numbers(options.data) else f"--data {options.data}"
    if options.data is None:
        raise ValueError(f"{why}: expected --data FILE with it")
    if alien:
        raise ValueError(
            f"{alien[0]}: shapes a single flow or its training, and {why} fits a density "
            "estimator, which sees to that itself; leave it out"
        )
    from maskedflow.tables import FLOWS

    if options.flow not in (None, *FLOWS):
        raise ValueError(f"--flow {options.flow}: with {why}, expected {', '.join(FLOWS)}")
    return why


def _all_numbers(file: Path) -> bool:
    from maskedflow.data import open_source
    from maskedflow.sources import CellError
    from maskedflow.tables import all_numbers

    source = open_source(file)
    try:
        return all_numbers(source, source.names)
    except CellError as error:
        raise ValueError(f"{error}{ADVICE[error.fault]}") from None


def train_table(
    options: TrainOptions, directory: Path, context: tuple[str, ...]
) -> tuple[TableRun, MixedTable]:
    """Fits an estimator to a table of columns of every kind."""
    from maskedflow.data import open_source
    from maskedflow.estimator import fit_table, open_mixed
    from maskedflow.runs import told_distinct

    assert options.data is not None
    seed, limit = options.seed or 0, options.time_limit
    if seed >= 2**32:
        raise ValueError(f"--seed {seed}: for a density estimator, expected less than {2**32}")
    table = open_mixed(
        options.data, context=context, schema=options.schema, missing=options.missing, seed=seed
    )
    notes = [*open_source(options.data).notes]
    if (options.flow, options.schema, options.missing, options.work) == (None,) * 4:
        notes.append(f"{options.data} is not all finite numbers, so --flow auto is taken")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for name in table.undeclared:
        print(
            f"note: --schema: what it says of {name!r} does not count in --context", file=sys.stderr
        )
    asked = {
        "data": str(options.data.resolve()),
        "flow": options.flow or "auto",
        "schema": None if options.schema is None else str(options.schema.resolve()),
        "missing": table.schema.missing,
        "time_limit": limit,
        "work": options.work,
        "context": options.context,
        "seed": seed,
    }
    rows = table.train.num_rows + table.test.num_rows
    if copies := told_distinct(rows, table.distinct):
        print(f"note: {options.data}{copies}", file=sys.stderr)
    print(f"{table.schema}\n")
    within = f", for about {limit:g} s at most" if limit else ""
    print(
        f"fitting {asked['flow']} to {directory.name}: {table.train.num_rows:,} rows of "
        f"{len(table.schema.names)} columns{within}",
        flush=True,
    )
    with waiting(f"fitting {asked['flow']}{within}"):
        run = fit_table(directory, table, asked)
    print(f"fitted in {run.config.seconds:.0f} s")
    return run, table


def report(run: TableRun, table: MixedTable, number: int | None = None) -> None:
    """Measures a run on the rows held out, writes summary and samples, and prints the results."""
    from maskedflow.data import write_batches, write_text
    from maskedflow.estimator import (
        evaluate_table,
        sample_table,
        table_results,
        table_summary,
    )

    evaluation = evaluate_table(run, table)
    write_text(run.summary, table_summary(run, evaluation))
    tell_seen(evaluation.seen, "the test rows")
    print(f"\n{table_results(evaluation)}\n", flush=True)
    number, (_, given) = number or SAMPLES, table.parts(run.scorable(table.test))
    if given is not None:
        number, given = 1, given.slice(0, number)
    drawn = sample_table(run, number, given)
    write_batches(run.samples, *drawn)
    print(f"results in {run.directory}: {run.summary.name}, samples/{run.samples.name}")
