"""What each ingredient of a modern flow gives, all of them trained for the same time.

    python benchmarks/ablation.py [--seconds 100] [--data power bsds300 mnist] [--again]

From a MAF as the paper has it, one thing is changed after the other, each on top of those before
it. At the end two flows of other orders, trained for as long each, are averaged. Everything is
measured on validation rows. Writes benchmarks/results/ablation.json after each, and ablation.md.
Times are seconds of one CPU core rather than of a clock on the wall.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pages import RESULTS, machine_table, markdown, read, write
from timing import count_core_seconds, machine

import maskedflow as mf
from maskedflow.data import Dataset
from maskedflow.runs import FlowConfig, Mean, build_flow, describe
from maskedflow.runs.build import start_at_data
from maskedflow.training import TrainConfig, evaluation, loop

WIDTH = {"power": 128, "bsds300": 512, "mnist": 1024}
JUDGES = 50_000

#: What is changed, in turn. None takes an argument away.
STEPS: list[tuple[str, dict[str, Any]]] = [
    ("MAF (5), learning rate 1e-3 throughout", {"transforms": 5, "batch_norm": True}),
    ("a cosine to zero", {"schedule": "cosine"}),
    ("residual networks", {"residual": True}),
    (
        "linear layers (LU) for batch norm",
        {"batch_norm": None, "first": "actnorm", "between": "lu"},
    ),
    ("the Gaussian of the training rows first", {"first": "whiten"}),
    ("a MADE of mixtures as base", {"base": 10}),
    ("three splines of 8 bins for five affine maps", {"name": "NSF", "transforms": 3, "bins": 8}),
    ("16 bins", {"bins": 16}),
    ("normal scores of each feature in the Gaussian's place", {"first": "scores"}),
    ("two splines for three and mixtures", {"transforms": 2, "base": None}),
    ("batches of 500 at a learning rate of 2e-3", {"batch_size": 500, "lr": 2e-3}),
]


def main() -> None:
    """Parse the arguments, measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=100.0, help="training time of each flow")
    parser.add_argument("--data", nargs="*", default=list(WIDTH), choices=list(WIDTH))
    parser.add_argument("--again", action="store_true", help="repeat what is in ablation.json")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of ablation.json")
    arguments = parser.parse_args()
    count_core_seconds(loop, evaluation)

    path = arguments.output / "ablation.json"
    known = read(path) or {"data": {}}
    for name in arguments.data:
        data = mf.data.load(name)
        found = known["data"].setdefault(name, {})
        changes: dict[str, Any] = {}
        for step, change in STEPS:
            changes = {**changes, **change}
            last = step == STEPS[-1][0]
            if found.get(step, {}).get("budget") == arguments.seconds and not arguments.again:
                continue
            flows = [
                train(data, changes, arguments.seconds, seed) for seed in range(2 if last else 1)
            ]
            scores = torch.stack([scored for scored, _ in flows])
            found[step] = entry(scores[0], flows[0][1], arguments.seconds)
            if last:
                mean = scores.logsumexp(dim=0) - math.log(len(scores))
                found["the mean of two, of other orders"] = entry(
                    mean, sum(epochs for _, epochs in flows), 2 * arguments.seconds
                )
            print(f"{name} {step}: {found[step]['value']:.3f}", file=sys.stderr, flush=True)
            known["machine"] = machine(("torch", "numba"))
            write(path, known, report(known))
    print(report(known))


def train(
    data: Dataset, changes: dict[str, Any], seconds: float, seed: int
) -> tuple[torch.Tensor, float]:
    """Trains a flow; gives the log-densities of validation rows, and the number of epochs."""
    width = WIDTH[data.name]
    arguments = {"features": data.features, "hidden_features": [width, width], **changes}
    settings = {"batch_size": 1000, "lr": 1e-3, "schedule": "constant"}
    settings = {name: arguments.pop(name, value) for name, value in settings.items()}
    kind = arguments.pop("name", "MAF")
    if arguments.get("base"):
        shared = {name: arguments[name] for name in ("hidden_features", "residual")}
        arguments["base"] = {"name": "made", "components": arguments["base"], **shared}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if seed:  # orders at random, where the first flow has them as they come
        arguments["randperm"] = True
    front = data.preprocessing()
    steps = tuple(describe(one) for one in front.transforms) if front else ()
    flow = build_flow(FlowConfig(kind, arguments, seed, steps), front)
    start_at_data(flow, data.train, seed)
    training = TrainConfig(epochs=10_000, time_limit=seconds, seed=seed, **settings)
    history = mf.training.fit(flow, data.train, data.validation, training)
    judges = type(data.validation)(data.validation.x[:JUDGES])
    epochs = history.records[-1].step * training.batch_size / len(data.train)
    return mf.training.evaluate(flow, judges), epochs


def entry(log_prob: torch.Tensor, epochs: float, budget: float) -> dict[str, float]:
    """A result."""
    return {**asdict(Mean.of(log_prob)), "epochs": round(epochs, 1), "budget": budget}


def report(known: dict[str, Any]) -> str:
    """What was found, as Markdown: nats of a validation row."""
    names = list(known["data"])
    lines = [["", *(f"{name} ({column})" for name in names for column in ("nats", "epochs"))]]
    steps = [step for step, _ in STEPS] + ["the mean of two, of other orders"]
    for step in steps:
        cells = [step]
        for name in names:
            one = known["data"][name].get(step)
            cells += ["", ""] if one is None else [f"{one['value']:.3f}", f"{one['epochs']:.1f}"]
        lines.append(cells)
    return f"{markdown(lines)}\n\n{machine_table(known['machine'])}\n"


if __name__ == "__main__":
    main()
