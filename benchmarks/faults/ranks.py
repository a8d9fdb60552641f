"""Kills one of two processes that train together, at random times, and resumes.

Run by hand: `python benchmarks/faults/ranks.py [--kills 50]`. What is left of the job has to say so
in one line, and to leave a checkpoint with which one process, or two, come to the same density as
a training that nobody has killed. Prints each kill, and how many held; exits with 1 if not all did.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from maskedflow.training.checkpoint import read

SIZES = ["--hidden_dim", "32", "--num_layers", "2", "--epochs", "20", "--batch_size", "50"]
TRAIN = ["-m", "maskedflow", "train", "--dataset", "moons", *SIZES, "--lr", "3e-4", "--no_report"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ROUNDING = 1e-3
"""Nats by which single precision lets two trainings differ whose sums are rounded otherwise."""


def started(folder: Path, processes: int, *options: str) -> subprocess.Popen[bytes]:
    """A training in a folder, by so many processes, each with files of its own for what it says."""
    command = [sys.executable, *TRAIN, "--out", str(folder / "runs"), *options]
    if processes > 1:
        logs = ["--log-dir", str(folder / "logs"), "--redirects", "3"]
        command = [sys.executable, *TORCHRUN, *logs, *command[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finished(folder: Path, processes: int, *options: str) -> float:
    """The last validation NLL of a training that nobody disturbs."""
    training = started(folder, processes, *options)
    _, said = training.communicate()
    assert training.returncode == 0, said.decode()[-2000:]
    last = (folder / "runs/moons/logs/metrics.jsonl").read_text().splitlines()[-1]
    return float(json.loads(last)["validation_nll"])


def children(process: int) -> list[int]:
    """The processes that one has started."""
    try:
        return [*map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())]
    except FileNotFoundError:
        return []


def said(folder: Path) -> list[str]:
    """All that the two processes said on standard error."""
    files = sorted((folder / "logs").rglob("stderr.log"))
    return [line for file in files for line in file.read_text().splitlines()]


def killed(folder: Path, seconds: float, chosen: int) -> int | None:
    """Kills the first process or the second after so long; None if both were not there any more."""
    job = started(folder, 2)
    time.sleep(seconds)
    ranks = sorted(children(job.pid))
    if len(ranks) == 2:
        os.kill(ranks[chosen], signal.SIGKILL)
    job.communicate()
    return job.returncode if len(ranks) == 2 else None


def attempt(folder: Path, seconds: float, chosen: int, resumed_by: int, wanted: float) -> str:
    """What went wrong with a kill; nothing if that is empty, and a dash if nobody was there."""
    code = killed(folder, seconds, chosen)
    if code is None:
        return "-"
    lines = [line for line in said(folder) if line.strip()]
    told = [line for line in lines if line.startswith("maskedflow: ")]
    if code == 0 or len(told) > 1 or any("Traceback" in line for line in lines):
        return f"exit {code} after {lines[-5:]}"
    latest = folder / "runs/moons/checkpoints/latest.safetensors"
    if latest.exists():
        read(latest)
        over = "stopped by" in (folder / "runs/moons/logs/training.log").read_text()
        if not told and not over:
            return f"nothing was said: {lines[-5:]}"
    nll = finished(folder, resumed_by, "--resume")
    return "" if abs(nll - wanted) < ROUNDING else f"{nll:.6f} nats where {wanted:.6f} were wanted"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)
    held = number = 0
    with tempfile.TemporaryDirectory() as root:
        wanted = finished(Path(root) / "alone", 1)
        start = time.monotonic()
        together = finished(Path(root) / "together", 2)
        lasts = time.monotonic() - start
        print(
            f"{wanted:.6f} nats by one process, {together:.6f} by two in {lasts:.1f} s", flush=True
        )
        while number < options.kills:
            folder = Path(root) / f"{number}"
            seconds, chosen = lasts * chance.uniform(0.1, 1.0), chance.randrange(2)
            wrong = attempt(folder, seconds, chosen, 1 + number % 2, wanted)
            if wrong == "-":  # over before it could be killed
                continue
            number += 1
            held += not wrong
            print(f"{seconds:5.1f} s, process {chosen}: {wrong or 'held'}", flush=True)
    print(f"{held} kills of {number}")
    return int(held < number)


if __name__ == "__main__":
    sys.exit(main())
