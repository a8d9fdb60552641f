"""Kills one of two processes that train together, at any moment, and resumes.

    python benchmarks/faults/ranks.py [--kills 50]

It holds if what is left of the job says so in one line, and leaves a checkpoint with which one
process or two, in turn, come to the same density as a training that nobody has killed. A command
takes longer to start than to train, so processes are forked from one that has trained already: the
agent is that of `torchrun` with `--standalone --start-method fork`, and each process calls what
`python -m maskedflow` calls.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from harness import tell
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from maskedflow.cli import main as command
from maskedflow.training.checkpoint import read

EPOCHS = 20
SIZES = ["--hidden_dim", "32", "--num_layers", "2", "--batch_size", "500"]
TRAIN = ["train", "--dataset", "moons", *SIZES, "--lr", "1e-3", "--no_report"]
ROUNDING = 1e-3
"""Nats by which single precision lets two trainings differ whose sums are rounded otherwise."""


def train(*words: str) -> None:
    """The command in this process."""
    try:
        command([*TRAIN, *words])
    except SystemExit as end:
        if end.code != 0:
            raise


def job(folder: Path, processes: int, *options: str) -> None:
    """Becomes a training in a folder, by so many processes, each with files for what it says."""
    with (folder / "said").open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    words = ["--out", str(folder / "runs"), "--epochs", str(EPOCHS), *options]
    if processes == 1:
        train(*words)
        return
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method="fork",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=Std.ALL),
    )
    elastic_launch(config, train)(*words)


def started(folder: Path, processes: int, *options: str) -> BaseProcess:
    """A process with a training in a folder."""
    folder.mkdir(exist_ok=True)
    process = multiprocessing.get_context("fork").Process(
        target=job, args=(folder, processes, *options)
    )
    process.start()
    return process


def epochs(folder: Path) -> list[str]:
    """A line of each epoch that is done."""
    path = folder / "runs/moons/logs/metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def finished(folder: Path, processes: int, *options: str) -> float:
    """The last validation NLL of a training that nobody disturbs."""
    training = started(folder, processes, *options)
    training.join()
    assert training.exitcode == 0, (folder / "said").read_text()[-2000:]
    return float(json.loads(epochs(folder)[-1])["validation_nll"])


def children(process: BaseProcess) -> list[int]:
    """The processes that one has started."""
    try:
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return sorted(map(int, path.read_text().split()))
    except FileNotFoundError:
        return []


def killed(folder: Path, at: int, seconds: float, rank: int) -> int | None:
    """Kills a process so long after an epoch; the exit code, or None if they had ended."""
    training = started(folder, 2)
    while training.is_alive() and (len(children(training)) < 2 or len(epochs(folder)) < at):
        time.sleep(0.02)
    time.sleep(seconds)
    if there := len(ranks := children(training)) == 2:
        os.kill(ranks[rank], signal.SIGKILL)
    training.join()
    return training.exitcode if there else None


def wrong(folder: Path, code: int, resumed_by: int, wanted: float) -> str:
    """What did not hold after a kill, nothing if all did."""
    said = [line for file in (folder / "logs").rglob("stderr.log") for line in file.open()]
    told = [line for line in said if line.startswith("maskedflow: ")]
    if code == 0 or len(told) > 1 or any("Traceback" in line for line in said):
        return f"exit {code} after {said[-5:]}"
    if (latest := folder / "runs/moons/checkpoints/latest.safetensors").exists():
        read(latest)
        over = "stopped by" in (folder / "runs/moons/logs/training.log").read_text()
        if not told and not over:
            return f"nothing was said: {said[-5:]}"
    nll = finished(folder, resumed_by, "--resume")
    return "" if abs(nll - wanted) < ROUNDING else f"{nll:.6f} nats where {wanted:.6f} were wanted"


def tried(root: Path, kills: int) -> Iterator[tuple[object, ...]]:
    """Kills so many times."""
    wanted, begun = finished(root / "alone", 1), time.monotonic()
    together = finished(root / "together", 2)
    epoch = (time.monotonic() - begun) / EPOCHS
    print(f"{wanted:.6f} nats by one process, {together:.6f} by two", flush=True)
    number = 0
    while number < kills:
        at, seconds, rank = random.randrange(EPOCHS), random.uniform(0, epoch), random.randrange(2)
        with tempfile.TemporaryDirectory(dir=root) as name:
            code = killed(Path(name), at, seconds, rank)
            if code is None:
                continue
            found = wrong(Path(name), code, 1 + number % 2, wanted)
        number += 1
        yield f"process {rank}, {seconds:.2f} s after epoch {at}", not found, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    kills = parser.parse_args().kills
    random.seed(0)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        train("--out", str(Path(root) / "before"), "--epochs", "1")
        return tell(tried(Path(root), kills))


if __name__ == "__main__":
    sys.exit(main())
