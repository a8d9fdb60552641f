"""How fast a fitted mixed table is scored, one row and 300 of them, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/table_scores.py FILE [--fit WORK]

With --fit an estimator is fitted and saved in FILE first. To compare two builds, fit one with each
(`PYTHONPATH=TREE/src`), then score in turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch

import maskedflow as mf

ROWS, SCORED = 3_000, 300


def main() -> None:
    """Fit, if asked to, and print milliseconds a row and rows a second."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--fit", type=float, metavar="WORK")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = table()
    train, test = rows[: ROWS * 4 // 5], rows[ROWS * 4 // 5 :]
    if arguments.fit:
        estimator = mf.DensityEstimator(missing="model", work=arguments.fit).fit(train)
        estimator.save(arguments.file)
    estimator = mf.DensityEstimator.load(arguments.file)
    one, many = test[:1], test[:SCORED]
    alone = seconds(lambda: estimator.score_samples(one), 7)
    whole = seconds(lambda: estimator.score_samples(many), 3)
    members = len(estimator.density_.plan["members"])
    nats = estimator.score_samples(test).mean()
    print(f"{members} members, {nats:.2f} nats, {1e3 * alone:.0f} ms, {SCORED / whole:.0f} rows/s")


def seconds(function: Callable[[], object], times: int) -> float:
    """The median of some calls, after one that does not count."""
    function()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return median(found)


def table() -> pd.DataFrame:
    """A made table: categories, counts, pay in round numbers, gaps, and numbers that depend."""
    rng = np.random.default_rng(0)
    team, flag = rng.choice(list("abcd"), ROWS), rng.random(ROWS) < 0.3
    age = rng.integers(20, 65, ROWS)
    step = np.where(rng.random(ROWS) < 0.6, 1000, 100)
    pay = np.exp(rng.normal(10 + 0.3 * (team == "a") + 0.01 * age, 0.3))
    x = rng.normal(size=(ROWS, 5))
    x[:, 1] += x[:, 0] ** 2
    x[:, 2] += 2 * flag
    x[:, 3] = np.round(np.abs(x[:, 3]) * 20)
    x[:, 4] += x[:, 1]
    height = rng.normal(170, 8, ROWS)
    height[rng.random(ROWS) < 0.15] = np.nan
    named = {f"x{i}": column for i, column in enumerate(x.T)}
    site, pay = rng.choice(list("xyz"), ROWS), (np.round(pay / step) * step).astype(int)
    columns = {"team": team, "site": site, "flag": flag, "age": age, "pay": pay, "height": height}
    return pd.DataFrame(columns | named)


if __name__ == "__main__":
    main()
