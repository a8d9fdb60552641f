"""A score of tables in memory, to be sent to the workers of other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from maskedflow.columns.frames import kind_of, to_arrow
from maskedflow.sources.memory import TableSource

from .run import Run, load_run
from .scoring import score_run

__all__ = ["Scorer"]


@dataclass(frozen=True)
class Scorer:
    """Adds the log-density of each row, in nats, to tables in memory.

    Its pickle is the path of the run and what is asked, never weights: a process opens the run
    when it first scores with it, and again when it was trained again. So it is a function for
    Ray Data's `map_batches`, Spark's `mapInPandas` and Dask's `map_partitions`.

    A table is scored as :func:`score_run` scores a file of just these rows. A row's log-density
    does not depend on the others of its table, but for the last digits, and the noise of a flow's
    values on a grid.

    Args:
        run: The run's folder, which all workers see.
        explain: As of :func:`score_run`.
        tail: Likewise.
        given: Likewise.

    Example:
        >>> import pickle
        >>> pickle.loads(pickle.dumps(Scorer("maf_results/power", tail=True))).tail
        True
    """

    run: str | Path
    explain: bool = False
    tail: bool = False
    given: Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", Path(self.run).absolute())

    def __call__(self, table: Any) -> Any:
        """The same table, and behind its columns those that `maskedflow score` writes.

        With `explain` what a column adds to the log-density stands in the place of its cells.

        Args:
            table: A table or a record batch of Arrow's, a frame of pandas, or a mapping from names
                to arrays, with the run's columns among any others.

        Raises:
            FileNotFoundError: If there is no such run.
            ValueError: As :func:`score_run`; or if the table has a column of this name itself.
            TypeError: If it is another kind of table.
        """
        kind = kind_of(table)
        if kind == "arrow" and not isinstance(table, pa.Table | pa.RecordBatch):
            table = pa.table(table)
        if kind not in ("arrow", "pandas", "mapping"):
            raise TypeError(
                "table: expected one of Arrow or pandas, or a mapping from names to arrays, got "
                f"{type(table).__name__}"
            )
        run = _opened(Path(self.run), _stamp(Path(self.run)))
        if run.config.data.time is not None:
            raise ValueError("table: a time series is scored as a whole, from a file")
        rows = to_arrow(table, "table", wanted=tuple(run.density.types))
        scores = score_run(
            run, TableSource(rows), explain=self.explain, tail=self.tail, given=self.given
        )
        replaced = run.density.columns if self.explain else ()
        for name in scores.schema.names:
            if name in rows.column_names and name not in replaced:
                raise ValueError(f"table: has a column {name!r} itself; leave it out")
        added = pa.Table.from_batches(scores.batches, schema=scores.schema)
        return _with_columns(table, kind, added)


def _with_columns(table: Any, kind: str, added: pa.Table) -> Any:
    """The table, and others behind its columns or in the place of those of their names."""
    columns = dict(zip(added.column_names, added.columns, strict=True))
    if kind == "arrow":
        for name, column in columns.items():
            cells = column if isinstance(table, pa.Table) else column.combine_chunks()
            place = table.schema.get_field_index(name)
            table = (
                table.append_column(name, cells)
                if place < 0
                else table.set_column(place, name, cells)
            )
        return table
    cells = {name: column.to_numpy() for name, column in columns.items()}
    return {**table, **cells} if kind == "mapping" else table.assign(**cells)


def _stamp(directory: Path) -> int:
    """When a run was written."""
    try:
        return (directory / "config.toml").stat().st_mtime_ns
    except OSError:  # of which opening it tells more
        return 0


@lru_cache(maxsize=4)
def _opened(directory: Path, stamp: int) -> Run:
    """A run, opened once for all tables, unless it was written anew."""
    return load_run(directory)
