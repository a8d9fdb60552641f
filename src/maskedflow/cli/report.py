"""``maskedflow report``."""

from __future__ import annotations

from pathlib import Path

__all__ = ["report"]


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
        data: A table of other test rows, .csv or .parquet. [default: those of the run's data]
        data_dir: Where data sets lie, if not where the run found them.
    """
    from maskedflow.data import Split, read_table
    from maskedflow.estimator import load_run
    from maskedflow.report import run_report
    from maskedflow.runs import Run

    found = load_run(run)
    if not isinstance(found, Run):
        from maskedflow.estimator import table_report

        other = None if data is None else found.read(data)
        print(f"report in {table_report(found, found.table(), other)}")
        return
    test = None
    if data is not None and found.config.data.time is not None:
        raise ValueError(f"--data {data}: the run of a time series is judged by its own test steps")
    if data is not None:
        names, width = (*found.columns, *found.context_columns), len(found.columns)
        rows = read_table(data, names, found.dtype)
        test = Split(rows[:, :width], rows[:, width:] if found.context_columns else None)
    print(f"report in {run_report(found, found.dataset(data_dir=data_dir), test)}")
