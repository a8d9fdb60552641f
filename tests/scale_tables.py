"""A small run, and folders of Parquet that are scored by it, in one process and in many."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from shutil import copytree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskedflow.runs import RunConfig

RUN = Path(__file__).parent / "golden" / "flow_numbers"

ROWS = 45_500
"""Four parts, the last of which is longer and ends within a block."""


def write_rows(folder: Path, rows: int = ROWS) -> pa.Table:
    """Rows like those of the run, and their numbers, in files that do not end where blocks do."""
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, rows))
    whole = pa.table({"id": np.arange(rows), "a": a, "b": 2 * b, "c": c - 3})
    folder.mkdir()
    ends = [0, rows // 3, rows // 2, rows]
    for number, (first, last) in enumerate(pairwise(ends)):
        part = whole.slice(first, last - first)
        pq.write_table(part, folder / f"{number}.parquet", row_group_size=7000)
    return whole


def run_with_level(folder: Path, level: float) -> Path:
    """The run, with a level below which draws are counted."""
    copytree(RUN, folder)
    record = folder / "config.toml"
    replace(RunConfig.read(record), level=level).write(record)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, byte for byte."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
