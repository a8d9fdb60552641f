"""``maskedflow score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

__all__ = ["score"]


def score(
    run: Path,
    file: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["-o", "--output"])],
) -> None:
    """Write the log-density of each row of a table, in nats, in the table's own units.

    The table is read in blocks, so it may be of any size, and rows keep their
    order. Columns are found by name, those of the context too; others may be there.

    Args:
        run: The run's folder, such as maf_results/power.
        file: The table, .csv or .parquet; or an array of rows or images, .npy.
        output: File to write, one column log_prob: .csv, .parquet or .npy.
    """
    from maskedflow.data import write_table
    from maskedflow.runs import load_run, score_batches

    scores = score_batches(load_run(run), file)
    written = write_table(output, ("log_prob",), (block[:, None] for block in scores))
    print(f"{written:,} rows in {output}")
