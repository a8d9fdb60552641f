"""Time series: rows in the order of time, windows of them, and what a calendar knows of a date."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.sources import CellError, Source, open_source, write_batches
from maskedflow.sources.notation import notation
from maskedflow.sources.numbers import floats, numbers

from .dataset import SeriesDataset
from .discrete import find_cells, notes_on
from .split import Split
from .table import File, check_varying

Times = NDArray[Any]
"""Points in time, datetime64[ns] or float64."""

WINDOW = 168
"""The most steps of a window, if no number is asked for: a week of hours."""

DAY, WEEK = 86_400.0, 7 * 86_400.0
MONDAY = 4 * DAY
"""The first Monday's midnight after the epoch, in seconds."""


@dataclass(frozen=True)
class Series:
    """A time series `x`, shape `(n, features)`, sorted by its times, datetime64[ns] or float64.

    `order` is the row of the table that each step comes from.
    """

    x: Tensor
    times: Times
    order: Tensor

    def following(self, steps: int) -> Times:
        """The times of the next steps, at the median distance of the steps so far.

        Example:
            >>> Series(torch.zeros(3, 1), np.array([0.0, 2.0, 4.0]), torch.arange(3)).following(2)
            array([6., 8.])
        """
        distance = np.sort(np.diff(self.times))[(len(self.times) - 1) // 2]
        return np.asarray(self.times[-1] + distance * np.arange(1, steps + 1))


def read_series(path: File, time: str, columns: Sequence[str] | None = None) -> Series:
    """Reads a table whose rows are steps of one series, and sorts them by time.

    Args:
        path: A file as :func:`open_source` takes it.
        time: The column of times: numbers, or dates in ISO 8601 as in 2024-12-31 23:00.
        columns: The features; all other columns if None.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is unknown, a cell is no finite number, or a time is missing, no
            date and no number, or there twice.
    """
    source = open_source(path)
    source.known([time], "time")
    columns = [name for name in source.names if name != time] if columns is None else columns
    if not columns:
        raise ValueError(
            f"time: {source.path} has no column beside {time!r}, none is left to model"
        )
    columns = source.known(columns, "columns")
    table = source.table([time, *columns], floats(columns))
    if not table.num_rows:
        raise ValueError(f"{source.path}: expected rows below the header, found none")
    times = _times(source, time, table.column(time))
    order = np.argsort(times, kind="stable")
    times = times[order]
    twice = np.flatnonzero(times[1:] == times[:-1])
    if len(twice):
        raise ValueError(
            f"{source.path}: column {time!r}: expected each time once, "
            f"found {times[twice[0]]} twice"
        )
    rows = torch.from_numpy(order)
    return Series(numbers(table, columns, source)[rows], times, rows)


def open_series(
    path: File,
    time: str,
    *,
    window: int | None = None,
    validation: float = 0.1,
    test: float = 0.1,
) -> SeriesDataset:
    """Opens a table as a time series: the past trains, what follows validates, the latest tests.

    Of a date its hour and weekday become the context, as sines and cosines. Steps are rows: a gap
    in time counts as none.

    Args:
        path: A file as :func:`open_source` takes it, its rows in any order.
        time: The column of times: numbers, or dates in ISO 8601.
        window: The steps of a window to train on; at most 168 and the validation's if None.
        validation: The fraction of the rows that validates, in (0, 1).
        test: The fraction of the rows that tests, in (0, 1).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As :func:`read_series`, or if rows are too few for a window.
    """
    source = open_source(path)
    names = tuple(name for name in source.names if name != time)
    series = read_series(source, time)
    sizes = int(validation * len(series.x)), int(test * len(series.x))
    if window is None:
        window = min(WINDOW, sizes[0])
    if not 2 <= window <= sizes[0]:
        raise ValueError(
            f"window: expected 2 steps to {sizes[0]}, the validation's of the {len(series.x)} rows "
            f"of {source.path}, got {window}"
        )
    context = calendar_names(series.times)
    c = calendar(series.times, context)
    lengths = [len(series.x) - sum(sizes), *sizes]
    train, validates, tests = (
        Split(x, known if context else None)
        for x, known in zip(series.x.split(lengths), c.split(lengths), strict=True)
    )
    check_varying(*train.x.aminmax(dim=0), names, source.path, len(train))
    order = torch.randperm(len(series.x), generator=torch.Generator().manual_seed(0))
    cells, shared = find_cells(series.x, order, names)
    if cells is not None:
        shared = [name for name, step in zip(names, cells.step, strict=True) if step] + shared
    notes = (*source.notes, *notes_on(names, None, shared))
    return SeriesDataset(
        source.name,
        train,
        validates,
        tests,
        names,
        context,
        window=window,
        times=series.times,
        notes=notes,
    )


def calendar_names(times: Times) -> tuple[str, ...]:
    """Calendar covariates of times: no hour if it is the same for all, none if they are numbers."""
    if times.dtype.kind != "M":
        return ()
    midnight = times - times.astype("datetime64[D]")
    hour = ("hour_sin", "hour_cos") if (midnight != midnight[:1]).any() else ()
    return (*hour, "weekday_sin", "weekday_cos")


def calendar(times: Times, names: Sequence[str]) -> Tensor:
    r"""Covariates of times: :math:`\sin, \cos 2\pi u` of the fraction u of day or week elapsed.

    A week begins on Monday, and is counted in whole days.

    There is a column, float32, for each of the names `hour_sin`, `hour_cos`, `weekday_sin` and
    `weekday_cos` that is asked for: shape `(n, names)` for times of shape `(n,)`.

    Raises:
        ValueError: If a name is unknown, or times are numbers and there are names.

    Example:
        >>> calendar(np.array(["2024-01-01T06:00"], "datetime64[ns]"), ["hour_sin", "weekday_sin"])
        tensor([[1., 0.]])
    """
    if names and times.dtype.kind != "M":
        raise ValueError(f"times: expected dates for {', '.join(names)}, got numbers")
    columns = []
    for name in names:
        unit, _, wave = name.partition("_")
        if unit not in ("hour", "weekday") or wave not in ("sin", "cos"):
            raise ValueError(f"names: expected hour_ or weekday_ and sin or cos, got {name!r}")
        seconds = times.astype("datetime64[ns]").astype(np.int64) / 1e9
        part = seconds % DAY / DAY if unit == "hour" else (seconds - MONDAY) % WEEK // DAY / 7
        columns.append(getattr(np, wave)(2 * math.pi * part))
    stacked = np.stack(columns, axis=1) if columns else np.empty((len(times), 0))
    return torch.from_numpy(stacked.astype(np.float32))


def write_forecasts(
    path: str | os.PathLike[str],
    time: str,
    times: Times,
    columns: Sequence[str],
    samples: Tensor,
) -> int:
    """Writes forecasts to a `.csv` or `.parquet` file: a row for each step of each.

    The samples, shape `(n, steps, features)`, are numbered from 1 in the column `sample`; the times
    of the steps, shape `(steps,)`, are in the column `time`. Returns the number of rows written.

    Raises:
        ValueError: If the suffix is none of these.
    """
    path = Path(path)
    if path.suffix == ".npy":
        raise ValueError(
            f"{path}: forecasts have times; expected a file ending in .csv or .parquet"
        )
    n, steps, _ = samples.shape
    if times.dtype.kind == "M" and (times == times.astype("datetime64[s]")).all():
        times = times.astype("datetime64[s]")  # a CSV file then shows no nanoseconds
    table = pa.table(
        {
            "sample": np.repeat(np.arange(1, n + 1), steps),
            time: np.tile(times, n),
            **{name: samples[..., i].reshape(-1).cpu().numpy() for i, name in enumerate(columns)},
        }
    )
    return write_batches(path, table.schema, table.to_batches())


def _times(source: Source, name: str, cells: pa.ChunkedArray) -> Times:
    """The times of a table's rows, in the file's order."""
    kind = cells.type
    if cells.null_count:
        row = int(np.argmax(cells.is_null().to_numpy()))
        raise source.cell_error(name, row, "a time", "none", "missing")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        times: Times = cells.cast(pa.timestamp("ns", zone)).to_numpy()
        return times.astype("datetime64[ns]")
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        wanted, cell = "numbers or dates such as 2024-12-31 23:00", str(cells[0].as_py())
        hint = notation(cell, map(str, cells.unique().to_pylist()))
        found = f"{cell!r} ({hint})" if hint else repr(cell)
        raise CellError(source.path, name, None, wanted, found, "kind")
    times = cells.cast(pa.float64(), safe=False).to_numpy()
    if not np.isfinite(times).all():
        row = int(np.argmin(np.isfinite(times)))
        raise source.cell_error(name, row, "a time", "no number")
    return times
