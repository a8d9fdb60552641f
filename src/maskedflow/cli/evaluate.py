"""``maskedflow evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts.types import PositiveInt

from .options import Device
from .output import note, tell_effective, tell_seen

if TYPE_CHECKING:
    from maskedflow.data import Dataset, MixedTable
    from maskedflow.runs import Run

SAMPLES = 1000
"""Rows drawn of the density of a table."""


def evaluate(
    run: Path | None = None,
    /,
    *,
    dataset: str | None = None,
    num_samples: PositiveInt | None = None,
    data: Path | None = None,
    weights: str | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    out: Path = Path("maf_results"),
    device: Device = "cpu",
) -> None:
    """Measure a run on its test rows; write results_summary.txt and a picture.

    Args:
        run: The run's folder, such as maf_results/power.
        dataset: Instead of RUN: the run of this data set in OUT.
        num_samples: Samples in the picture. [default: 64 images, or 2000 rows]
        data: The run's table, if it is no longer where it was.
        weights: Column that says how much each test row counts. [default: as in training]
        data_dir: Where data sets lie, if not where the run found them.
        download: Fetch the data set when it is not here.
        out: Directory of all runs. [default: maf_results]
        device: Where densities of a flow are computed: cpu, cuda, mps or auto. [default: cpu]
    """
    if (run is None) == (dataset is None):
        raise ValueError(f"expected RUN or --dataset, got {'neither' if run is None else 'both'}")

    from maskedflow.runs import load_run

    found = load_run(out / str(dataset) if run is None else run).to(device)
    rows = found.dataset(data_dir=data_dir, file=data, weights=weights, download=download)
    report(found, rows, num_samples)


def report(
    run: Run, dataset: Dataset | MixedTable, num_samples: int | None = None, page: bool = False
) -> None:
    """Measures a run, writes summary, samples and maybe a page, and prints the results."""
    from maskedflow.files import write_text
    from maskedflow.runs import evaluate_run, results_table, summary

    evaluation = evaluate_run(run, dataset)
    run.to("cpu")  # where pages and pictures ask it
    write_text(run.summary, summary(run, evaluation))
    tell_seen(evaluation.seen, "the test rows")
    tell_effective(evaluation.effective, evaluation.rows)
    print(f"\n{results_table(evaluation)}\n", flush=True)
    if run.config.data.errors:
        note("densities are of rows as measured, given their errors; samples have errors, too")
    draw = _draw_picture if run.config.search is None else _draw_rows
    samples = draw(run, dataset, num_samples)
    print(f"results in {run.directory}: {run.summary.name}, samples/{samples.name}")
    if page:
        from maskedflow.report import run_report

        print(f"report in {run_report(run, dataset)}")


def _draw_picture(run: Run, dataset: Any, number: int | None) -> Path:
    from maskedflow.data import SeriesDataset
    from maskedflow.report import run_picture, save

    test = dataset.test
    times = dataset.times[-len(test) :] if isinstance(dataset, SeriesDataset) else None
    save(run_picture(run, test, number, times=times), run.picture)
    return run.picture


def _draw_rows(run: Run, dataset: Any, number: int | None) -> Path:
    from maskedflow.runs import sample_run
    from maskedflow.sources import write_batches

    number, given = number or SAMPLES, run.density.possible(dataset.test).context
    if given is not None:
        number, given = 1, given.slice(0, number)
    write_batches(run.samples, *sample_run(run, number, given))
    return run.samples
