"""Answers as a folder of files, each written by whichever process has time for it.

A part of the folder is a :class:`~maskedflow.sources.Shard` of the rows. It follows from the run,
the table, the options and its number, not from other parts: so whoever writes it, and however
often, its bytes are the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from maskedflow.files import atomic_folder
from maskedflow.sources import Dialect, Shard, Source, open_source, write_batches

from .level import Tally
from .run import load_run
from .sampling import draws_of, sample_batches, sample_given_run, to_arrow
from .scoring import score_run

__all__ = [
    "Job",
    "Part",
    "complete_parts",
    "part_count",
    "sample_parts",
    "score_parts",
    "write_folder",
    "write_in_turn",
    "write_part",
]

SMALLEST, LARGEST = 10_000, 1_000_000
"""The rows of a part, at least and at most."""
MANY = 100
"""Parts that keep the cores of some machines busy; only a table of larger ones has more."""


class Piece(NamedTuple):
    """A piece of the rows on its way to a file, and what its draws are counted by."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    tally: Tally | None = None


Job = Callable[[], Callable[[Shard], Piece]]
"""Opens what is needed, once a process, and gives the pieces; can be pickled and sent to others."""


@dataclass(frozen=True)
class Part:
    """A file that was written.

    Args:
        number: Which part it is.
        num_rows: Its rows.
        notes: What the library warned of.
        tally: How many draws ran away, where that is counted.
    """

    number: int
    num_rows: int
    notes: Sequence[str] = ()
    tally: Tally | None = None


Writer = Callable[[Job, int, Path], Iterable[Part]]
"""Writes so many parts of a job into a folder, in any order."""


def part_count(rows: int, blocks: int) -> int:
    """How many parts so many rows are, which are drawn or scored in so many blocks.

    Example:
        >>> part_count(59_000, 59), part_count(10_000_000, 1000), part_count(10**9, 10**5)
        (5, 100, 1000)
    """
    return max(1, min(blocks, rows // SMALLEST, max(MANY, -(-rows // LARGEST))))


def score_parts(
    run: Path, path: Path, dialect: Dialect | None = None, **options: Any
) -> Callable[[Shard], Piece]:
    """Opens a run and a table whose rows are scored; options are those of :func:`score_run`."""
    found = load_run(run)
    source: Path | Source = path if path.suffix == ".npy" else open_source(path, dialect)

    def piece(shard: Shard) -> Piece:
        scores = score_run(found, source, shard=shard, **options)
        return Piece(scores.schema, scores.batches)

    return piece


def sample_parts(
    run: Path,
    n: int,
    context: Path | None = None,
    dialect: Dialect | None = None,
    *,
    seed: int = 0,
    within: bool = False,
) -> Callable[[Shard], Piece]:
    """Opens a run of which rows are drawn, as :func:`sample_run` draws them."""
    found = load_run(run)
    given = None if context is None else found.read_context(open_source(context, dialect))
    draws = draws_of(found, within)

    def piece(shard: Shard) -> Piece:
        if draws is not None:
            draws.tally = replace(draws.tally, drawn=0, low=0)
        drawn = sample_batches(draws or found.density, n, given, seed=seed, shard=shard)
        tally = None if draws is None else draws.tally
        return Piece(*to_arrow(found.density, drawn, given), tally)

    return piece


def complete_parts(
    run: Path, path: Path, n: int, dialect: Dialect | None = None, *, seed: int = 0
) -> Callable[[Shard], Piece]:
    """Opens a run and a table whose rows are completed, as :func:`sample_given_run` does."""
    found, source = load_run(run), open_source(path, dialect)

    def piece(shard: Shard) -> Piece:
        return Piece(*sample_given_run(found, source, n, seed=seed, shard=shard))

    return piece


def write_folder(folder: Path, job: Job, parts: int, write: Writer) -> int:
    """Writes the parts of a job into a folder, which appears under its name when it is complete.

    Args:
        folder: The folder, new or empty. The order of its files' names is that of the rows.
        job: What is written.
        parts: How many files.
        write: Has them written: :func:`write_in_turn`, or what spreads them over processes.

    Returns:
        The number of rows written.

    Raises:
        ValueError: If there is something in the folder, or a part cannot be.

    Warns:
        UserWarning: What the library warned of, part by part.
    """
    with atomic_folder(folder) as beside:
        written = sorted(write(job, parts, beside), key=lambda part: part.number)
    assert [part.number for part in written] == [*range(1, parts + 1)]
    for text in dict.fromkeys(text for part in written for text in part.notes):
        warnings.warn(text, stacklevel=2)
    if tallies := [part.tally for part in written if part.tally is not None]:
        reduce(add, tallies).warn()
    return sum(part.num_rows for part in written)


def write_in_turn(job: Job, parts: int, folder: Path) -> Iterator[Part]:
    """Writes one part after the other in this process."""
    piece = job()
    for number in range(1, parts + 1):
        yield write_part(piece, Shard(number, parts), folder)


def write_part(piece: Callable[[Shard], Piece], shard: Shard, folder: Path) -> Part:
    """Writes a part into a file, whole or not at all."""
    width = max(5, len(str(shard.of)))
    path = folder / f"part-{shard.number:0{width}}.parquet"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        schema, batches, tally = piece(shard)
        rows = write_batches(path, schema, batches)
    notes = tuple(str(one.message) for one in caught)
    return Part(shard.number, rows, notes, tally)
