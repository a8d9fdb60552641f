"""What goes on, on a terminal: rows on their way into a file, or a wait."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pyarrow import RecordBatch


def tracked(blocks: Iterable[RecordBatch], total: int | None) -> Iterator[RecordBatch]:
    """The same blocks, of about so many rows, with a progress bar on a terminal."""
    from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn

    from maskedflow.training.progress import make_bar

    columns = BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    bar = make_bar("{task.fields[rows]}", *columns)
    if bar is None:
        yield from blocks
        return
    rows, start = 0, time.monotonic()
    with bar:
        task = bar.add_task("", total=total, rows="")
        for block in blocks:
            yield block
            rows += block.num_rows
            rate = rows / max(time.monotonic() - start, 1e-3)
            bar.update(
                task,
                completed=rows if total is None else min(rows, total),
                rows=f"{rows:,} rows, {rate:,.0f} rows/s",
            )


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Tells on standard error, if that is a terminal, what goes on and for how long."""
    from rich.progress import SpinnerColumn, TimeElapsedColumn

    from maskedflow.training.progress import make_bar

    bar = make_bar(SpinnerColumn(), "{task.description}", TimeElapsedColumn())
    with bar or nullcontext():
        if bar is not None:
            bar.add_task(what, total=None)
        yield


def written(rows: int, output: Path, start: float) -> str:
    """What to say of a file that was written since `start`, of :func:`time.monotonic`."""
    seconds = time.monotonic() - start
    rate = f"{float(f'{rows / max(seconds, 1e-3):.3g}'):,.0f}"
    return f"{rows:,} rows in {output} ({rate} rows/s)"
