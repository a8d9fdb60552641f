"""How long calls of the kernel take where another process spins on one of the cores.

    python benchmarks/faults/beside.py [--seconds 1]

Densities of a small MAF for more and more rows, with one thread and with two, whatever the kernel
would choose; and training steps of two flows by `fit`, where it chooses among both. Each with idle
threads that spin, as OpenMP has it, and that sleep. Minutes; prints two tables.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CALLS = """
import json, statistics, sys, time
import torch
import maskedflow as mf
from maskedflow.kernels import threads

seconds, found = float(sys.argv[1]), []
flow = mf.flows.MAF(6, transforms=2, hidden_features=(100, 100))
work = []
with torch.no_grad():
    for rows in (64 * 2**k for k in range(2, 11)):
        x = torch.randn(rows, 6)
        flow().log_prob(x)
        taken = {1: [], 2: []}
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for count, times in taken.items():
                threads.Team.size = lambda self, work, most: globals().update(work=work) or count
                turn = time.perf_counter() + 0.1
                calls, start = 0, time.perf_counter()
                while time.perf_counter() < turn:
                    flow().log_prob(x)
                    calls += 1
                times.append((time.perf_counter() - start) / calls)
        found.append((work, *(statistics.median(times) for times in taken.values())))
print(json.dumps(found))
"""

STEPS = """
import json, sys, time
import torch
import maskedflow as mf
from maskedflow.data import Split
from maskedflow.training import TrainConfig, fit

seconds, features, *hidden = float(sys.argv[1]), *map(int, sys.argv[2:])
x = torch.randn(20_000, features)
flow = mf.flows.MAF(features, hidden_features=hidden)
epochs = 1
while True:
    start = time.perf_counter()
    config = TrainConfig(epochs=epochs, batch_size=1000, patience=epochs)
    fit(flow, Split(x), Split(x[:100]), config)
    taken = time.perf_counter() - start
    if epochs > 1 and taken > 3 * seconds:
        break
    epochs *= 2  # the first one compiles
print(json.dumps(taken / (20 * epochs)))
"""

FLOWS = ((6, 100, 100), (63, 512, 512))
POLICIES = {"spin": {}, "sleep": {"OMP_WAIT_POLICY": "passive"}}


def python(code: str, *arguments: object, **environment: str) -> Any:
    """What a fresh Python prints, as JSON says it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@contextmanager
def spinner(core: int | None) -> Iterator[None]:
    """A process that has a core, while the context lasts; none if that is None."""
    if core is None:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(process.pid, {core})
        time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each number of a table")
    seconds = parser.parse_args().seconds
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    calls, steps = {}, {}
    for idle, policy in POLICIES.items():
        for busy in (False, True):
            with spinner(cores[-1] if busy else None):
                calls[idle, busy] = python(CALLS, seconds, OMP_NUM_THREADS="2", **policy)
                for flow in FLOWS:
                    for count in ("1", "2"):
                        found = python(STEPS, seconds, *flow, OMP_NUM_THREADS=count, **policy)
                        steps[flow, count, idle, busy] = found
    kinds = list(calls)
    print("two threads: of one thread's time; idle threads", *kinds)
    for rows in zip(*calls.values(), strict=True):
        work, one = rows[0][0], statistics.median(row[1] for row in rows)
        shares = [f"{row[2] / row[1]:8.2f}" for row in rows]
        print(f"{work / 1e6:8.0f} million multiplications, {1e3 * one:7.2f} ms", *shares)
    print("milliseconds of a step")
    for flow in FLOWS:
        for count in ("1", "2"):
            taken = [f"{1e3 * steps[flow, count, *kind]:8.2f}" for kind in kinds]
            print(f"{flow}, {count} threads at most", *taken)


if __name__ == "__main__":
    main()
