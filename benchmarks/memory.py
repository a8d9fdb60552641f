"""Measures the memory of a training step, with activations kept and with them recomputed.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [--only NAME]

Each measurement is a process of its own, of which the system tells the largest resident size, less
that of a step on two rows: what is left is what grows with the batch. Writes
`benchmarks/results/memory.{json,md}`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pages import RESULTS, machine_table, markdown, write
from timing import machine

import maskedflow as mf
from maskedflow.flows import Flow

BATCHES = (100, 500)


def cifar10() -> Flow:
    """The flow of `maskedflow train --auto` for CIFAR-10, without its start."""
    shape: dict[str, Any] = {"hidden_features": [1024, 1024], "degrees": "random"}
    return mf.flows.MAF(3072, transforms=10, base=mf.flows.base("marginals", 3072), **shape)


def splines() -> Flow:
    """Splines for MNIST, whose maps are torch's."""
    return mf.flows.NSF(784, transforms=3, hidden_features=[256, 256], degrees="random")


FLOWS: dict[str, tuple[Callable[[], Flow], int]] = {
    "MAF (10) of CIFAR-10": (cifar10, 3072),
    "splines of MNIST": (splines, 784),
}


def main() -> None:
    """Measures, prints and writes; or measures one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=FLOWS)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.batch is not None:
        sys.stdout.write(measure(arguments.only, arguments.batch, arguments.recompute))
        return
    names = [arguments.only] if arguments.only else list(FLOWS)
    found = [row for name in names for row in measured(name)]
    setting = machine(("torch",))
    text = report(found, setting)
    print(text)
    write(arguments.output / "memory.json", {"machine": setting, "found": found}, text)


def measure(name: str, batch: int, recompute: bool) -> str:
    """The peak in bytes, and the seconds of two steps."""
    make, features = FLOWS[name]
    x = torch.randn(2 * batch, features, generator=torch.Generator().manual_seed(0))
    config = mf.training.TrainConfig(epochs=1, batch_size=batch, recompute=recompute)
    flow = make()
    start = time.process_time()
    mf.training.fit(flow, x, x[:2], config)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"{peak} {seconds}"


def measured(name: str) -> list[dict[str, Any]]:
    """The measurements of a flow, each in a process of its own."""

    def ask(batch: int, recompute: bool) -> tuple[int, float]:
        words = [sys.executable, __file__, "--only", name, "--batch", str(batch)]
        words += ["--recompute"] if recompute else []
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
        return int(told[-2]), float(told[-1])

    least, _ = ask(2, recompute=False)
    rows = []
    for batch in BATCHES:
        for recompute in (False, True):
            peak, seconds = ask(batch, recompute)
            row = {"flow": name, "batch": batch, "recompute": recompute, "seconds": seconds}
            rows.append(row | {"peak": peak, "activations": peak - least})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def report(found: list[dict[str, Any]], setting: dict[str, Any]) -> str:
    """The page."""
    rows = [["flow", "batch", "activations", "peak, GB", "of which grows, GB", "CPU seconds"]]
    rows += [
        [
            one["flow"],
            str(one["batch"]),
            "recomputed" if one["recompute"] else "kept",
            f"{one['peak'] / 1e9:.2f}",
            f"{one['activations'] / 1e9:.2f}",
            f"{one['seconds']:.1f}",
        ]
        for one in found
    ]
    return "\n".join(
        [
            "# Memory of a training step",
            "",
            "The largest resident size of a process that trains, and what of it grows with the",
            "batch: beyond that of steps on two rows. CPU seconds are those of two steps with all",
            "that is around them.",
            "",
            markdown(rows),
            "",
            machine_table(setting),
            "",
        ]
    )


if __name__ == "__main__":
    main()
