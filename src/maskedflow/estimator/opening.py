"""Opening a run, whichever kind it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from maskedflow import runs
from maskedflow.runs import Run

from .config import TableConfig

if TYPE_CHECKING:
    from .run import TableRun

__all__ = ["load_run"]


def load_run(path: str | Path) -> Run | TableRun:
    """Opens a run: its record, and the flow or the estimator. Nothing is unpickled.

    Args:
        path: The run's folder, such as `maf_results/power`.

    Returns:
        The run: of a mixed table its `estimator` scores and samples, of anything else its `flow`,
        `run.flow().log_prob(x)`; both in nats, in the units of the data.

    Raises:
        FileNotFoundError: If there is no such folder, record or checkpoint.
        ValueError: If a file is damaged, or they do not belong together.
    """
    directory = Path(path)
    if not TableConfig.is_at(directory / "config.toml"):
        return runs.load_run(directory)
    from .run import load_table_run  # with scikit-learn, which a flow does without

    return load_table_run(directory)
