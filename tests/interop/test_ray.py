"""Scores, draws and searches on a cluster of Ray's of two nodes, with a core each."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("ray")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
import ray.cloudpickle
from ray.cluster_utils import Cluster

from commands import call, run
from maskedflow.interop.ray import write_parts
from maskedflow.runs.parts import Piece, score_parts, write_folder
from maskedflow.sources import Shard
from maskedflow.training import checkpoint
from scale_tables import RUN, contents, run_with_level, write_rows

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.filterwarnings("ignore")

STORE = 200 * 2**20
"""Bytes of a node's object store."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two nodes."""
    node = {"num_cpus": 1, "object_store_memory": STORE}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    nodes.add_node(**node)
    ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
    assert ray.cluster_resources()["CPU"] == 2
    yield
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale") / "rows"
    write_rows(folder)
    return folder


def dying(job: Callable[[], Callable[[Shard], Piece]], left: Path) -> Callable[[Shard], Piece]:
    """A job in whose last part the process kills itself, in the middle of the file, once."""
    piece = job()

    def killed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield next(batches)
        if not left.exists():
            left.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        yield from batches

    def part(shard: Shard) -> Piece:
        found = piece(shard)
        if shard.number == shard.of:
            return found._replace(batches=killed(found.batches))
        return found

    return part


def test_scores_are_those_of_one_process(rows: Path, tmp_path: Path) -> None:
    words = "score", RUN, rows, "--keep", "all", "-o"
    assert run(*words, tmp_path / "one") == 0
    assert run(*words, tmp_path / "many", "--engine", "ray") == 0
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert len(contents(tmp_path / "many")) == 4


def test_the_part_of_a_worker_that_was_killed_is_written_by_another(
    rows: Path, tmp_path: Path
) -> None:
    assert run("score", RUN, rows, "-o", tmp_path / "one") == 0
    job, killed = partial(score_parts, RUN, rows), tmp_path / "killed"
    written = write_folder(tmp_path / "many", partial(dying, job, killed), 4, write_parts)
    assert written == 45_500
    assert int(killed.read_text()) != os.getpid()
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_draws_depend_on_no_number_of_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = run_with_level(tmp_path / "run", level=-9.0)
    words = "sample", again, "-n", 30_500, "--seed", 3, "-o"
    code, _, told = call(capsys, *words, tmp_path / "one")
    assert code == 0
    code, _, told_of_many = call(capsys, *words, tmp_path / "many", "--engine", "ray")
    assert code == 0
    assert "of 30,500 draws have a log-density below -9.0 nats" in told
    assert told in told_of_many
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_an_error_is_the_line_of_one_process_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_rows(tmp_path / "rows").slice(0, 100)
    bad = table.set_column(1, "a", pa.array([*range(99), None], pa.float64()))
    pq.write_table(bad, tmp_path / "rows" / "3.parquet")
    words = "score", RUN, tmp_path / "rows", "-o", tmp_path / "scores"
    code, _, told = call(capsys, *words)
    assert code == 2
    assert call(capsys, *words, "--engine", "ray")[2].splitlines()[-1] == told.strip()
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_a_search_finds_what_one_process_finds(tmp_path: Path) -> None:
    table = write_rows(tmp_path / "rows", 200).drop_columns(["id"])
    pq.write_table(table, tmp_path / "t.parquet")
    words = "train", "--data", tmp_path / "t.parquet", "--flow", "nsf", "--work", 1, "--out"
    for name, engine in (("one", ()), ("many", ("--engine", "ray"))):
        assert run(*words, tmp_path / name, *engine) == 0
    one, many = (
        checkpoint.read(tmp_path / name / "t" / "estimator.safetensors") for name in ("one", "many")
    )
    assert one[0].keys() == many[0].keys()
    assert all(torch.equal(tensor, many[0][name]) for name, tensor in one[0].items())
    assert one[1] == many[1]


def test_a_pipeline_of_rays_own(people: Path, snippet: Callable[..., dict[str, Any]]) -> None:
    snippet("A pipeline of Ray Data", "scale-machines.md")
    assert run("score", RUN, people / "people", "-o", people / "one.parquet") == 0
    wanted = pq.read_table(people / "one.parquet")["log_prob"].to_pylist()
    found = pq.read_table(people / "scores").sort_by("id")
    assert found["id"].to_pylist() == list(range(45_500))
    assert pc.is_valid(found["log_prob"]).to_pylist() == [True] * 45_500
    assert found["log_prob"].to_pylist() == pytest.approx(wanted, rel=1e-4, abs=1e-4)
