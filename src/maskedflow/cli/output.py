"""What commands print, and say of files: notes on standard error, tables, progress."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from maskedflow.data import Seen
    from maskedflow.runs.parts import Job, Part


class _Block(Protocol):
    @property
    def num_rows(self) -> int: ...


Block = TypeVar("Block", bound=_Block)

STDOUT = Path("-")
"""What stands for standard output."""


def note(text: str) -> None:
    """Says what should be known, and is no result."""
    print(f"note: {text}", file=sys.stderr)


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(self.format(record))


@contextmanager
def logged() -> Iterator[None]:
    """Says what the library logs as notes."""
    logger, handler = logging.getLogger("maskedflow"), _Notes()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def told() -> Iterator[None]:
    """Says what the library warns of as notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: note(str(message))
        yield


def tell_seen(seen: Seen | None, where: str) -> None:
    """Warns of test rows that are no test, if there are some."""
    if seen is not None and (seen.trained or seen.validated):
        note(f"{where}: {seen}; of such rows the likelihood is too good")


def tell_effective(effective: float | None, rows: int) -> None:
    """Says how many rows of equal weight test rows are worth, if they have weights."""
    if effective is not None:
        print(f"effective sample size: {effective:,.1f} of {rows:,} test rows, by their weights")


def print_table(names: Sequence[str], right: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table, some of whose columns are numbers that belong to the right."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.file.isatty():
        console.width = 250  # a pipe has no width, and paths are long
    console.print(table)


def check_ending(output: Path | None, *endings: str) -> None:
    """Refuses a file to write with another ending."""
    if output is None or (output == STDOUT and ".csv" in endings):
        return
    if not any(output.name.endswith((one, *_packed(one))) for one in endings):
        raise ValueError(f"-o {output}: expected a file ending in {', '.join(endings)}")


def check_apart(output: Path, *tables: Path | None) -> None:
    """Refuses to write over a table that is read."""
    if any(one and one.exists() and output.exists() and output.samefile(one) for one in tables):
        raise ValueError(f"-o {output}: is the table that is read; expected another file")


def _packed(ending: str) -> tuple[str, ...]:
    """The same of a compressed file, if text may be."""
    return (f"{ending}.gz",) if ending in (".csv", ".tsv") else ()


def check_engine(
    output: Path, engine: str | None, shard: str | None, device: str, table: Path | None
) -> bool:
    """Whether a folder is to be written; refuses what does not go with one, or needs one."""
    folder = not output.suffix and output != STDOUT
    if engine is not None and not folder:
        raise ValueError(
            f"-o {output}: each worker of --engine {engine} writes files; expected a folder, a "
            "name without an ending"
        )
    if folder and shard is not None:
        raise ValueError(f"--shard {shard}: a folder has all pieces; leave it out")
    if folder and device not in ("auto", "cpu"):
        raise ValueError(f"--device {device}: the parts of a folder are computed on CPUs")
    if folder and table == STDOUT:
        raise ValueError("-: each part of a folder reads its rows itself; expected a file")
    return folder


def write_parts(output: Path, job: Job, rows: int, blocks: int, engine: str | None) -> int:
    """Writes a folder of about so many rows, which come in blocks, with a bar on a terminal."""
    from maskedflow.runs.parts import part_count, write_folder, write_in_turn

    def write(job: Job, parts: int, folder: Path) -> Iterator[Part]:
        if engine is None:
            return tracked(write_in_turn(job, parts, folder), rows)
        from maskedflow.interop import ray

        return tracked(ray.write_parts(job, parts, folder), rows)

    return write_folder(output, job, part_count(rows, blocks), write)


def tracked(blocks: Iterable[Block], total: int | None) -> Iterator[Block]:
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
def watched(what: str) -> Iterator[Callable[[float, str], None]]:
    """Takes the share of a search that is done, and a line, and draws them if on a terminal."""
    from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn

    from maskedflow.training.progress import make_bar

    columns = BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    bar = make_bar("{task.description}", *columns)
    with bar or nullcontext():
        if bar is None:
            yield lambda share, line: None
            return
        task = bar.add_task(what, total=1.0)
        yield lambda share, line: bar.update(task, completed=share, description=line)


def tell_written(rows: int, output: Path, start: float | None = None) -> None:
    """Tells of a file that was written, since `start`, of :func:`time.monotonic`.

    Not where rows have gone to standard output.
    """
    if output == STDOUT:
        return
    rate = ""
    if start is not None:
        seconds = time.monotonic() - start
        rate = f" ({float(f'{rows / max(seconds, 1e-3):.3g}'):,.0f} rows/s)"
    print(f"{rows:,} rows in {output}{rate}")
