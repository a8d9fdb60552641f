"""``maskedflow report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .csv import CsvOptions, Table, opened
from .output import check_ending, tell_effective


def report(
    run: Path,
    /,
    *,
    data: Table | None = None,
    weights: str | None = None,
    data_dir: Path | None = None,
    output: Annotated[Path | None, Parameter(name=["-o", "--output"])] = None,
    csv: CsvOptions | None = None,
) -> None:
    """Write a page about a run, with all its pictures, that needs no network.

    Args:
        run: The run's folder, such as maf_results/power.
        data: A table of other test rows, in a file. [default: those of the run's data]
        weights: Column that says how much each test row counts. [default: as in training]
        data_dir: Where data sets lie, if not where the run found them.
        output: File to write, .html. [default: report.html in the run's folder]
        csv: How CSV files are written.
    """
    from maskedflow.report import run_report
    from maskedflow.runs import load_run

    check_ending(output, ".html")
    if csv is not None and data is None:
        raise ValueError("options of CSV files: expected --data FILE with them")
    found = load_run(run)
    if data is not None and found.config.data.time is not None:
        raise ValueError(f"--data {data}: the run of a time series is judged by its own test steps")
    test = None if data is None else found.read(opened(data, csv), weights)
    own = found.dataset(data_dir=data_dir, weights=weights if data is None else None)
    judged = own.test if test is None else test
    if judged.weight is not None:
        tell_effective(judged.effective, len(judged))
    print(f"report in {run_report(found, own, test, output)}")
