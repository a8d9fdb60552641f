"""``maskedflow score``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .output import tracked, written


def score(
    run: Path,
    file: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["-o", "--output"])],
    keep: str | None = None,
    shard: str | None = None,
) -> None:
    """Write the log-density of each row of a table, in nats, in the table's own units.

    The table is read in blocks, so it may be of any size, and rows keep their
    order. Columns are found by name, those of the context too; others may be there.

    With --shard 2/5 the second of five pieces is scored. Written one after another,
    by cat say, the pieces are byte for byte the whole as CSV: the first begins with
    the names, the others have none.

    Of a mixed table, what a column cannot hold, such as a new category, has minus
    infinity; and a row with missing cells has nan in a run of --missing drop.

    Args:
        run: The run's folder, such as maf_results/power.
        file: The table, .csv or .parquet, or a folder of .parquet files, in the order
            of their names; or an array of rows or images, .npy.
        output: File to write, with a column log_prob: .csv, .parquet or .npy.
        keep: Columns to carry along before log_prob, separated by commas; or all.
        shard: Which piece to score of how many, such as 1/4.
    """
    from maskedflow.runs import load_run, score_run
    from maskedflow.sources import Shard, write_batches

    piece = None if shard is None else Shard.parse(shard)
    kept = () if keep is None else tuple(name.strip() for name in keep.split(","))
    start = time.monotonic()
    scores = score_run(load_run(run), file, keep=None if keep == "all" else kept, shard=piece)
    batches = tracked(scores.batches, scores.rows)
    header = piece is None or piece.number == 1
    print(written(write_batches(output, scores.schema, batches, header=header), output, start))
