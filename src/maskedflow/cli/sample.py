"""``maskedflow sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

__all__ = ["sample"]

FORMATS = (".csv", ".parquet", ".npy", ".png")


def sample(
    run: Path,
    /,
    *,
    number: Annotated[PositiveInt, Parameter(name=["-n", "--number"])],
    output: Annotated[Path, Parameter(name=["-o", "--output"])],
    context: Path | None = None,
    seed: NonNegativeInt = 0,
) -> None:
    """Draw rows from a run's density, in the units of its data.

    With --context each row of that table gets NUMBER samples, and its columns are
    written beside them.

    Args:
        run: The run's folder, such as maf_results/power.
        number: Rows to draw, for each context if there are contexts.
        output: File to write: .csv, .parquet, .npy, or a picture, .png.
        context: Table with the columns that the flow is conditional on, found by name.
        seed: Seed of the draws. [default: 0]
    """
    if output.suffix not in FORMATS:
        raise ValueError(f"-o {output}: expected a file ending in {', '.join(FORMATS)}")
    if not output.parent.is_dir():
        raise ValueError(f"-o {output}: there is no folder {output.parent}")

    import torch

    from maskedflow.data import read_table, write_table
    from maskedflow.runs import load_run, sample_batches

    found = load_run(run)
    names = found.context_columns
    if names and context is None:
        raise ValueError(f"--context: {run} is conditional on {', '.join(names)}; name a table")
    if context is not None and not names:
        raise ValueError(f"--context {context}: the flow of {run} has no context")
    conditions = None if context is None else read_table(context, names)
    blocks = (
        x if c is None else torch.hstack([x, c])
        for x, c in sample_batches(found.flow, number, conditions, seed=seed)
    )
    if output.suffix == ".png":
        from maskedflow.report import samples_picture, save

        save(samples_picture(found, torch.cat(list(blocks))[:, : len(found.columns)]), output)
        written = number if conditions is None else number * len(conditions)
    else:
        written = write_table(output, (*found.columns, *names), blocks)
    print(f"{written:,} rows in {output}")
