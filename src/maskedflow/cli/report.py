"""``maskedflow report``."""

from __future__ import annotations

from pathlib import Path


def report(
    run: Path,
    /,
    *,
    data: Path | None = None,
    data_dir: Path | None = None,
) -> None:
    """Write report.html in a run's folder: one page, with all its pictures, that needs no network.

    Args:
        run: The run's folder, such as maf_results/power.
        data: A table of other test rows, in a file. [default: those of the run's data]
        data_dir: Where data sets lie, if not where the run found them.
    """
    from maskedflow.report import run_report
    from maskedflow.runs import load_run

    found = load_run(run)
    if data is not None and found.config.data.time is not None:
        raise ValueError(f"--data {data}: the run of a time series is judged by its own test steps")
    test = None if data is None else found.read(data)
    print(f"report in {run_report(found, found.dataset(data_dir=data_dir), test)}")
