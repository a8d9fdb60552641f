"""The recipe for Spark, on two of its workers on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from commands import run
from scale_tables import RUN

pytest.importorskip("pyspark")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def spark(people: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A session on this machine, which nothing outside of it sees, begun where recipes run."""
    from pyspark.sql import SparkSession

    monkeypatch.setitem(os.environ, "SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setitem(os.environ, "PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.config("spark.driver.memory", "512m").getOrCreate()
    yield
    session.stop()


@pytest.mark.usefixtures("spark")
def test_the_recipe(people: Path, snippet: Callable[..., dict[str, Any]]) -> None:
    snippet("Spark", "scale-machines.md")
    assert run("score", RUN, people / "people", "-o", people / "one.parquet") == 0
    wanted = pq.read_table(people / "one.parquet")["log_prob"].to_pylist()
    found = pq.read_table(people / "scores").sort_by("id")
    assert found.column_names == ["id", "a", "b", "c", "log_prob"]
    assert found["id"].to_pylist() == list(range(45_500))
    assert found["log_prob"].to_pylist() == pytest.approx(wanted, rel=1e-4, abs=1e-4)
