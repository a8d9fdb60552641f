"""Times a search on one worker of Ray's and on two: the same search, and twice the work.

    python benchmarks/scale_search.py [--work 40] [--rounds 3]

A worker is a process with one thread. Flows of a search and refits of its members go to workers;
trees and mixtures stay in the process that was called. Strong scaling: the same search by two. Weak
scaling: twice the work by two. Sides take turns, Ray is there before, and the first turn, in which
workers compile, does not count. Searches of the same work have to find the same density, bit for
bit. Writes `benchmarks/results/scale_search.{json,md}`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import torch
from pages import RESULTS, machine_table, markdown, write
from timing import machine

from maskedflow import DensityEstimator
from maskedflow.interop.ray import searching


def make_table(rows: int = 4000) -> pa.Table:
    """Five numbers and a category that depend on each other."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(rows, 5))
    group = (z[:, 0] + rng.normal(size=rows) > 0).astype(int)
    x = np.column_stack([z[:, 0], z[:, 0] ** 2 + z[:, 1], np.exp(z[:, 2] / 2) * (1 + group)])
    x = np.column_stack([x, np.sin(2 * x[:, 0]) + z[:, 3] / 4, z[:, 4] * (1 + np.abs(z[:, 1]))])
    columns = {name: x[:, i] for i, name in enumerate("abcde")}
    return pa.table(columns | {"group": np.array(["in", "out"])[group]})


def search(table: pa.Table, work: float) -> tuple[float, bytes]:
    """Searches, and gives the seconds and the log-densities of some rows."""
    start = time.perf_counter()
    found = DensityEstimator(work=work, random_state=0).fit(table)
    return time.perf_counter() - start, found.score_samples(table.slice(0, 500)).tobytes()


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=float, default=40.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    import ray

    torch.set_num_threads(1)
    table = make_table()
    sides = {
        "one worker": (1, arguments.work),
        "two workers": (2, arguments.work),
        "two workers, twice the work": (2, 2 * arguments.work),
    }
    took: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(arguments.rounds + 1):
        densities = {}
        for side, (workers, work) in sides.items():
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
            with searching():
                seconds, densities[side] = search(table, work)
            ray.shutdown()
            print(f"{side}: {seconds:.1f} s", flush=True)
            if turn:
                took[side].append(seconds)
        assert densities["one worker"] == densities["two workers"]
    one = median(took["one worker"])
    rows = [["", "seconds", "ratio"]]
    rows += [
        [side, f"{median(each):.1f}", f"{median(each) / one:.2f}"] for side, each in took.items()
    ]
    setting = machine(("torch", "ray"))
    text = f"# A search by several processes\n\n{markdown(rows)}\n\n{machine_table(setting)}\n"
    print(text)
    write(
        arguments.output / "scale_search.json",
        {"machine": setting, "work": arguments.work, "seconds": took},
        text,
    )


if __name__ == "__main__":
    main()
