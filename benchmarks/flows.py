"""Compare all flows that the command line knows, each trained for the same time.

    python benchmarks/flows.py [--seconds 60] [--data power mnist] [--flows maf nsf] [--again]

Writes benchmarks/results/flows.json after each flow, and flows.md from it. What is there already,
trained for as long, is not done again unless asked for. Times are seconds of one CPU core rather
than of a clock on the wall, so that other work on the machine costs no flow its share.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from pages import RESULTS, machine_table, markdown, number, read, write
from timing import count_core_seconds, machine

import maskedflow as mf
from maskedflow.data import Dataset, Split
from maskedflow.flows import Flow
from maskedflow.recipes import RECIPES, recipe
from maskedflow.runs import FlowConfig, Mean, build_flow
from maskedflow.runs.build import start_at_data
from maskedflow.runs.settings import settle
from maskedflow.training import TrainConfig, evaluation, loop

#: At most so many rows to train on, that decide on the best epoch, and that are tested on.
ROWS = {"power": (300_000, 10_000, 20_000), "mnist": (10_000, 1_000, 2_000)}
OTHER = (300_000, 5_000, 5_000)

#: Rows to score and to sample, and the seconds after which it is left at fewer.
SCORED, LONGEST = 1_000, 20.0

#: Couplings, and the autoregressive flows with the same maps.
PAIRS = (("realnvp", "maf"), ("nsf-coupling", "nsf"))

Entry = dict[str, Any]


def main() -> None:
    """Parse the arguments, measure what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="training time of each flow")
    parser.add_argument("--data", nargs="*", default=["power", "mnist"], help="data sets")
    parser.add_argument("--flows", nargs="*", default=list(RECIPES), help="flows")
    parser.add_argument("--again", action="store_true", help="repeat what is in flows.json")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of flows.json")
    arguments = parser.parse_args()
    count_core_seconds(loop, evaluation)

    path = arguments.output / "flows.json"
    known = read(path) or {"entries": {}}
    for name in arguments.data:
        data = shortened(mf.data.load(name), *ROWS.get(name, OTHER))
        for flow in arguments.flows:
            if recipe(flow).images and data.image_shape is None:
                continue
            done = known["entries"].get(name, {}).get(flow, {})
            if done.get("budget") == arguments.seconds and not arguments.again:
                continue
            print(f"{name} {flow}", end=": ", file=sys.stderr, flush=True)
            try:
                entry = measure(data, flow, arguments.seconds)
                print(f"{entry['nll']:.2f} nats", file=sys.stderr, flush=True)
            except (RuntimeError, ValueError) as error:  # a table without one flow is a table still
                traceback.print_exc()
                entry = {"failed": str(error).splitlines()[0]}
            known = read(path) or {"entries": {}}  # another run may have added to it
            known["entries"].setdefault(name, {})[flow] = {"budget": arguments.seconds, **entry}
            known["machine"] = machine(("torch", "numba"))
            write(path, known, report(known))
    print(report(known))


def shortened(data: Dataset, train: int, validation: int, test: int) -> Dataset:
    """The data set with some of its rows."""
    generator = torch.Generator().manual_seed(0)

    def some(split: Split, rows: int) -> Split:
        return Split(split.x[torch.randperm(len(split), generator=generator)[:rows]])

    values = {field.name: getattr(data, field.name) for field in fields(data)}
    parts = {
        "train": some(data.train, train),
        "validation": some(data.validation, validation),
        "test": some(data.test, test),
    }
    return Dataset(**{**values, **parts})


def measure(data: Dataset, name: str, seconds: float) -> Entry:
    """Trains a flow with the settings that the command line has for it, and measures it."""
    settings = settle({"dataset": data.name, "flow": name})
    made = recipe(name)
    config = FlowConfig(made.constructor, made.build(data.features, 0, settings, data.image_shape))
    flow = build_flow(config, data.preprocessing())
    start_at_data(flow, data.train, seed=0)
    names = {field.name for field in fields(TrainConfig)} - {"epochs", "time_limit"}
    chosen = {key: value for key, value in settings.items() if key in names}
    training = TrainConfig(epochs=10_000, time_limit=seconds, **chosen)
    history = mf.training.fit(flow, data.train, data.validation, training)
    nll = Mean.of(-mf.training.evaluate(flow, data.test))
    rows = data.test.x[:SCORED].float()
    return {
        "nll": nll.value,
        "error": nll.error,
        "seconds": sum(history.seconds),
        "steps": history.records[-1].step,
        "epochs": history.records[-1].step / math.ceil(len(data.train) / training.batch_size),
        "parameters": sum(p.numel() for p in flow.parameters()),
        **times(flow, rows),
    }


@torch.no_grad()
def times(flow: Flow, rows: torch.Tensor) -> Entry:
    """The time to score and to sample, and how many rows."""
    density = flow()
    entry: Entry = {}
    jobs: dict[str, Callable[[int], object]] = {
        "score": lambda n: density.log_prob(rows[:n]),
        "sample": lambda n: density.sample((n,)),
    }
    for name, job in jobs.items():
        n = 10  # the first call compiles
        while (seconds := timed(job, n)) < LONGEST / 10 and n < SCORED:
            n *= 10
        again = 3 if seconds < LONGEST / 10 else 0
        entry[name] = min(timed(job, n) for _ in range(again)) if again else seconds
        entry[f"{name} rows"] = n
    return entry


def timed(job: Callable[[int], object], n: int) -> float:
    """Seconds of a call."""
    start = time.process_time()
    job(n)
    return time.process_time() - start


def report(known: Mapping[str, Any]) -> str:
    """The tables of each data set, and what they were measured on."""
    parts = ["# All flows"]
    for name, entries in known["entries"].items():
        trained, validated, tested = (f"{n:,}" for n in ROWS.get(name, OTHER))
        budgets = " or ".join(f"{b:g}" for b in sorted({e["budget"] for e in entries.values()}))
        parts += [
            f"## {name}",
            f"At most {budgets} s of one core for each. Of the data set's rows at most {trained} "
            f"are trained on, {validated} decide on the best epoch, and {tested} are tested on.",
            table(entries),
            "Of these, the same maps in couplings and autoregressive:",
            pairs_table(entries),
        ]
    parts.append(machine_table(known["machine"]))
    return "\n\n".join(parts) + "\n"


def table(entries: Mapping[str, Entry]) -> str:
    """All flows, the best first."""
    head = ["flow", "NLL, nats", "steps", "epochs", "training, s"]
    head += [f"{SCORED:,} scores, s", f"{SCORED:,} samples, s", "parameters"]
    rows = [head]
    for name in sorted(entries, key=lambda name: entries[name].get("nll", math.inf)):
        entry = entries[name]
        if "failed" in entry:
            rows.append([f"`{name}`", entry["failed"], *[""] * 6])
            continue
        row = [f"`{name}`", nll(entry), f"{entry['steps']:,}", number(entry["epochs"])]
        row += [number(entry["seconds"]), *(duration(entry, key) for key in ("score", "sample"))]
        rows.append([*row, f"{entry['parameters']:,}"])
    return markdown(rows)


def pairs_table(entries: Mapping[str, Entry]) -> str:
    """Couplings beside autoregressive flows: what a direction costs each transform, and takes."""
    rows = [["", "density", "samples", "1,000 scores, s", "1,000 samples, s", "NLL, nats"]]
    for pair in PAIRS:
        for name, samples in zip(pair, ("1 pass", "1 sweep; D passes the usual way"), strict=True):
            if "nll" in entries.get(name, {}):
                entry = entries[name]
                found = [duration(entry, "score"), duration(entry, "sample"), nll(entry)]
                rows.append([f"`{name}`", "1 pass", samples, *found])
    return markdown(rows)


def nll(entry: Entry) -> str:
    """The negative log-likelihood to the second digit of its error."""
    return str(Mean(entry["nll"], entry["error"]))


def duration(entry: Entry, key: str) -> str:
    """Seconds, and for how many rows if these are not all."""
    rows = entry[f"{key} rows"]
    return number(entry[key]) + ("" if rows == SCORED else f" for {rows}")


if __name__ == "__main__":
    main()
