"""Processes that train together end where one ends, to rounding."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
import pytest
import torch

import maskedflow as mf
from maskedflow.training import Ranks
from together import SIZE, cases

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

Found = dict[str, dict[str, np.ndarray]]

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="forks, on Linux only")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What came of each case, and in which process."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, str(ROOT / "tests/together.py"), str(folder)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {file.stem: dict(np.load(file)) for file in folder.glob("*.npz")}


def assert_alike(found: Found, name: str, tolerance: float = 1e-9) -> None:
    """Of all processes the same, bit for bit, and of one process alone to rounding."""
    first = found["rank 0"][name]
    assert first.size > 0
    for rank in range(1, SIZE):
        np.testing.assert_array_equal(found[f"rank {rank}"][name], first)
    np.testing.assert_allclose(first, found["alone"][name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [*cases(), "streamed", "evaluation"])
def test_several_processes_are_as_one(name: str, found: Found) -> None:
    assert_alike(found, name)


def test_steps_that_are_not_finite_are_left_out_by_all(found: Found) -> None:
    for name in ("not finite", "not finite, torch"):
        assert [found[f"rank {rank}"][name][4] for rank in range(SIZE)] == [3] * SIZE


@pytest.mark.parametrize("kind", ["False then True", "True then False", "True then True"])
def test_another_number_of_processes_resumes(kind: str, found: Found) -> None:
    one, resumed = found["alone"]["compiled"], found["rank 0"][f"resumed, {kind}"]
    np.testing.assert_allclose(resumed, one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["stopped", "time limit"])
def test_the_first_process_decides_when_to_stop(name: str, found: Found) -> None:
    steps = [found[f"rank {rank}"][name].tolist() for rank in range(SIZE)]
    assert steps == [steps[0]] * SIZE
    if name == "stopped":
        step, interrupted = steps[0]
        assert step >= 3  # a look may be after several
        assert interrupted


def test_others_are_refused_and_the_first_is_left_alone(found: Found) -> None:
    for rank in range(SIZE):
        told = {name: str(text) for name, text in found[f"refusals {rank}"].items()}
        assert re.match("ValueError: flow: BatchNorm1d normalises", told["batch norm of torch's"])
        if rank == 0:
            assert re.match("ConnectionError: another process of", told["another rate"])
        else:
            assert re.match(f"ValueError: process {rank}: expected the rows", told["another rate"])


def test_calls_of_a_search_are_shared_out(found: Found) -> None:
    of = [found[f"searches {rank}"] for rank in range(SIZE)]
    np.testing.assert_array_equal(of[0]["made"], [*np.sqrt(range(7)), 4, 5])
    assert str(of[0]["said"]) == "math domain error"
    assert [one["here"].tolist() for one in of] == [[0, 3, 6, 4, 16], [1, 4, -1, 25], [2, 5]]
    assert not of[1]["made"].size


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_the_whole(size: int) -> None:
    def ranks(rank: int) -> Ranks:
        one = Ranks(alone=True)
        one.rank, one.size = rank, size
        return one

    for start, end in ((0, 0), (3, 4), (5, 25)):
        shares = [ranks(rank).share(start, end) for rank in range(size)]
        assert [row for share in shares for row in range(*share)] == [*range(start, end)]
        sizes = [last - first for first, last in shares]
        assert max(sizes) == -(-(end - start) // size)
        assert shares[0][1] > start or start == end


def test_one_process_is_alone() -> None:
    ranks = Ranks()
    numbers = torch.tensor([1.0, 2.0])
    assert (ranks.size, ranks.is_first, ranks.part(0, 5)) == (1, True, None)
    assert torch.equal(ranks.sum_(numbers), torch.tensor([1.0, 2.0]))
    assert (ranks.total(3), ranks.decide(4)) == (3, 4)


@pytest.fixture
def torchrun(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [*TORCHRUN, "-m", "maskedflow", "train", "--out", str(tmp_path), *options]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
def test_torchrun_makes_one_run(
    torchrun: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    options = ["--dataset", "moons", "--no_report"]
    done = torchrun(*options, "--epochs", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stopped by epochs") == done.stdout.count("test set") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["moons"]
    again = torchrun(*options, "--epochs", "3", "--resume")
    assert again.returncode == 0, again.stderr
    assert len((tmp_path / "moons/logs/metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_a_search_by_several_processes_finds_the_same(
    torchrun: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 300))
    table = tmp_path / "t.csv"
    np.savetxt(
        table, np.column_stack([a, a**2 + 0.3 * b]), delimiter=",", header="a,b", comments=""
    )
    options = ["--data", str(table), "--flow", "auto", "--work", "4", "--no_report"]
    done = torchrun(*options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fitted in") == 1
    alone = [
        sys.executable,
        "-m",
        "maskedflow",
        "train",
        "--out",
        str(tmp_path / "alone"),
        *options,
    ]
    subprocess.run(alone, env=ENVIRONMENT, capture_output=True, check=True)
    one, other = (mf.load_run(folder / "t").density for folder in (tmp_path / "alone", tmp_path))
    assert one.density.plan == other.density.plan
    assert len(one.density.plan["members"]) > 1
    rows = pacsv.read_csv(table)
    np.testing.assert_array_equal(one.log_prob(rows), other.log_prob(rows))


@pytest.mark.slow
def test_a_search_is_spread_once(
    torchrun: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i},{i % 7}\n" for i in range(100)))
    done = torchrun("--data", str(tmp_path / "t.csv"), "--flow", "auto", "--engine", "ray")
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("maskedflow: ")]
    assert said == ["maskedflow: --engine ray: expected no torchrun, which spreads them, too"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_wrong_option_is_told_by_the_first_process(rank: int) -> None:
    words = [sys.executable, "-m", "maskedflow", "train", "--epoch", "3"]
    group = {"RANK": str(rank), "WORLD_SIZE": "2"}
    done = subprocess.run(
        words, env=ENVIRONMENT | group, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    told = done.stderr.splitlines()
    assert len(told) == 1 - rank
    assert all(line.startswith("maskedflow: Unknown option: --epoch") for line in told)


@pytest.mark.slow
def test_kills_are_survived() -> None:
    harness = ROOT / "benchmarks/faults/ranks.py"
    done = subprocess.run(
        [sys.executable, str(harness), "--kills", "2"], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "held 2 of 2", done.stdout + done.stderr
