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
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.files import atomic
from maskedflow.sources import open_source
from maskedflow.sources.csv import CsvSource
from maskedflow.sources.source import one_line_errors

from .dataset import Dataset, Split
from .discrete import find_cells, notes_on
from .table import check_varying, column_names, read_table

__all__ = ["Series", "calendar", "open_series", "read_series", "windows", "write_forecasts"]

Times = NDArray[Any]
"""Moments, datetime64[ns] or float64."""

WINDOW = 168
"""The most steps of a window, if no number is asked for: a week of hours."""

DAY, WEEK = 86_400.0, 7 * 86_400.0
MONDAY = 4 * DAY
"""The first Monday's midnight after the epoch, in seconds."""


@dataclass(frozen=True)
class Series:
    """The rows of a time series, sorted by time.

    Args:
        x: The features of each step, shape `(n, features)`.
        times: When each step is, datetime64[ns] or float64, ascending.
        order: The row of the table that each step comes from.
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
        following: Times = self.times[-1] + distance * np.arange(1, steps + 1)
        return following


def read_series(
    path: str | os.PathLike[str], time: str, columns: Sequence[str] | None = None
) -> Series:
    """Reads a table whose rows are steps of one series, and sorts them by time.

    Args:
        path: A `.csv` or `.parquet` file.
        time: The column of times: numbers, or dates in ISO 8601 as in 2024-12-31 23:00.
        columns: The features; all other columns if None.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is unknown, a cell is no finite number, or a time is missing, no
            date and no number, or there twice.
    """
    path = Path(path)
    names = column_names(path)
    if time not in names:
        raise ValueError(f"time: {path} has no column {time!r}; its columns are {', '.join(names)}")
    columns = [name for name in names if name != time] if columns is None else list(columns)
    if not columns:
        raise ValueError(f"time: {path} has no column beside {time!r}, none is left to model")
    if missing := [name for name in columns if name not in names]:
        raise ValueError(f"{path}: expected a column {missing[0]!r}, found {', '.join(names)}")
    times = _times(path, time)
    order = np.argsort(times, kind="stable")
    times = times[order]
    twice = np.flatnonzero(times[1:] == times[:-1])
    if len(twice):
        raise ValueError(
            f"{path}: column {time!r}: expected each time once, found {times[twice[0]]} twice"
        )
    rows = torch.from_numpy(order)
    return Series(read_table(path, columns)[rows], times, rows)


def open_series(
    path: str | os.PathLike[str],
    time: str,
    *,
    window: int | None = None,
    validation: float = 0.1,
    test: float = 0.1,
) -> Dataset:
    """Opens a table as a time series: the past trains, what follows validates, the latest tests.

    Of a date its hour and weekday become the context, as sines and cosines. Steps are rows: a gap
    in time counts as none.

    Args:
        path: A `.csv` or `.parquet` file, its rows in any order.
        time: The column of times: numbers, or dates in ISO 8601.
        window: The steps of a window to train on; at most 168 and the validation's if None.
        validation: The fraction of the rows that validates, in (0, 1).
        test: The fraction of the rows that tests, in (0, 1).

    Returns:
        The data set, whose rows are in the order of time.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As :func:`read_series`, or if rows are too few for a window.
    """
    path = Path(path)
    names = tuple(name for name in column_names(path) if name != time)
    series = read_series(path, time, names)
    sizes = int(validation * len(series.x)), int(test * len(series.x))
    if window is None:
        window = min(WINDOW, sizes[0])
    if not 2 <= window <= sizes[0]:
        raise ValueError(
            f"window: expected 2 steps to {sizes[0]}, the validation's of the {len(series.x)} rows "
            f"of {path}, got {window}"
        )
    context = calendar_names(series.times)
    c = calendar(series.times, context)
    lengths = [len(series.x) - sum(sizes), *sizes]
    train, validates, tests = (
        Split(x, known if context else None)
        for x, known in zip(series.x.split(lengths), c.split(lengths), strict=True)
    )
    check_varying(train.x, names, path)
    order = torch.randperm(len(series.x), generator=torch.Generator().manual_seed(0))
    cells, shared = find_cells(series.x, order, names)
    if cells is not None:
        shared = [name for name, step in zip(names, cells.step, strict=True) if step] + shared
    notes = (*open_source(path).notes, *notes_on(names, None, shared))
    return Dataset(path.stem, train, validates, tests, names, context, window=window, notes=notes)


def windows(x: Tensor, length: int, stride: int = 1) -> Tensor:
    """Cuts a series into windows, without a copy; the last one ends with the last step.

    Args:
        x: The series, shape `(n, features)`.
        length: The steps of a window.
        stride: The steps from a window's start to the next one's.

    Returns:
        The windows, shape `(windows, length, features)`.

    Raises:
        ValueError: If the series is shorter than a window.

    Example:
        >>> windows(torch.arange(6)[:, None], length=3, stride=2)[..., 0]
        tensor([[1, 2, 3],
                [3, 4, 5]])
    """
    if not 1 <= length <= len(x):
        raise ValueError(f"length: expected 1 to {len(x)} steps, got {length}")
    return x[(len(x) - length) % stride :].unfold(0, length, stride).transpose(1, 2)


def calendar_names(times: Times) -> tuple[str, ...]:
    """What is worth knowing of these times: no hour if all are at the same one, nothing if numbers.

    Example:
        >>> calendar_names(np.array(["2024-01-01", "2024-01-02"], "datetime64[ns]"))
        ('weekday_sin', 'weekday_cos')
    """
    if times.dtype.kind != "M":
        return ()
    midnight = times - times.astype("datetime64[D]")
    hour = ("hour_sin", "hour_cos") if (midnight != midnight[:1]).any() else ()
    return (*hour, "weekday_sin", "weekday_cos")


def calendar(times: Times, names: Sequence[str]) -> Tensor:
    r"""Covariates of times: :math:`\sin, \cos 2\pi u` of the part u that is over of day or week.

    A week begins on Monday, and its parts are whole days.

    Args:
        times: The times, shape `(n,)`.
        names: Some of `hour_sin`, `hour_cos`, `weekday_sin` and `weekday_cos`.

    Returns:
        One column a name, float32, shape `(n, names)`.

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


def cut(split: Split, window: int, stride: int) -> Split:
    """The windows of a series, with the covariates of their steps."""
    x, c = split.x, split.context
    return Split(windows(x, window, stride), None if c is None else windows(c, window, stride))


def write_forecasts(
    path: str | os.PathLike[str],
    time: str,
    times: Times,
    columns: Sequence[str],
    samples: Tensor,
) -> int:
    """Writes forecasts to a `.csv` or `.parquet` file: a row for each step of each.

    Args:
        path: The file to write; one that is there is replaced when the new one is complete.
        time: The name of the column of times.
        times: The times, shape `(steps,)`.
        columns: A name for each feature.
        samples: The forecasts, shape `(n, steps, features)`; their numbers, from 1, are the column
            `sample`.

    Returns:
        The number of rows written.

    Raises:
        ValueError: If the suffix is none of these.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path}: expected a file ending in .csv or .parquet")
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
    with atomic(path) as beside:
        (pacsv.write_csv if path.suffix == ".csv" else pq.write_table)(table, beside)
    return n * steps


def _times(path: Path, name: str) -> Times:
    """The times of a table's rows, in the file's order."""
    source = open_source(path)
    with one_line_errors(path):
        if isinstance(source, CsvSource):
            try:
                column = _csv_column(source, name, {})
            except pa.ArrowInvalid:  # the first block looked like integers, a later one did not
                column = _csv_column(source, name, {name: pa.float64()})
        else:
            column = pa.Table.from_batches(source.batches([name]), source.types([name]))[name]
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy())) + 1
        raise ValueError(f"{path}: column {name!r}, row {row}: expected a time, found none")
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        times: Times = column.cast(pa.timestamp("ns", zone)).to_numpy()
        return times.astype("datetime64[ns]")
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(
            f"{path}: column {name!r}: expected numbers or dates such as 2024-12-31 23:00, "
            f"found {column[0].as_py()!r}"
        )
    numbers: Times = column.cast(pa.float64(), safe=False).to_numpy()
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers))) + 1
        raise ValueError(f"{path}: column {name!r}, row {row}: expected a time, found no number")
    return numbers


def _csv_column(source: CsvSource, name: str, types: dict[str, pa.DataType]) -> pa.ChunkedArray:
    return source.read([name], types)[name]
