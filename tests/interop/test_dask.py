"""The recipe for Dask, in processes of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from commands import run
from scale_tables import RUN

dask = pytest.importorskip("dask")

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_recipe(people: Path, snippet: Callable[..., dict[str, Any]]) -> None:
    with dask.config.set(scheduler="processes", num_workers=2):
        snippet("Dask", "scale-machines.md")
    assert run("score", RUN, people / "people", "-o", people / "one.parquet") == 0
    wanted = pq.read_table(people / "one.parquet")["log_prob"].to_pylist()
    found = pq.read_table(people / "scores").sort_by("id")
    assert found["id"].to_pylist() == list(range(45_500))
    assert found["log_prob"].to_pylist() == pytest.approx(wanted, rel=1e-4, abs=1e-4)
