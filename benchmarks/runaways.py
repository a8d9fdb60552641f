"""What in a flow or its training lets samples run away: MNIST flows, one thing changed in each.

    python benchmarks/runaways.py [--steps 1000] [--samples 10000] [--only NAME ...] [--again]

A network that is asked far from its data answers with numbers far from those it gave there. Where
an early feature of a sample is unusual, those that follow from it are more so, from layer to layer.
Each flow is trained by the same steps, from the same seed, and then

- the log-densities of 2,000 training images tell its level: as far below the lowest of them as that
  is below the median, as `maskedflow sample` has it;
- samples are counted that have a logit beyond 13.8, where those of all images end (beyond 30, too),
  and that, with pixels brought back to 0..255 as in a file of samples, are below that level.

The log-scales of the first flow are bounded after its training, too, which costs none. Prices are
in nats of validation images, in pixels' units. Writes benchmarks/results/runaways.json after each
flow, and runaways.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pages import RESULTS, machine_table, markdown, read, write
from timing import machine

import maskedflow as mf
from maskedflow.data import Dataset, Split
from maskedflow.flows import Flow, MaskedAutoregressiveTransform
from maskedflow.training import TrainConfig, evaluate, fit
from maskedflow.transforms import (
    LazyComposedTransform,
    Logit,
    MonotonicAffineTransform,
)

ROWS = 2_000
END = 13.8


@dataclass(frozen=True)
class Change:
    """What is changed of a MAF of five layers with batch norm: its flow, and its training."""

    flow: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def within(bound: float) -> partial[MonotonicAffineTransform]:
    """Affine maps whose log-scales end there."""
    return partial(MonotonicAffineTransform, slope=math.exp(-bound))


FIRST = "MAF (5) as `maskedflow train` has it"
AFTERWARDS = (3.0, 2.0, 1.5)
CHANGES = {
    FIRST: Change(),
    "networks with tanh": Change({"activation": torch.nn.Tanh}),
    "no batch norm": Change({"batch_norm": False}),
    "log-scales within 2": Change({"univariate": within(2.0)}),
    "weight decay 1e-2": Change(training={"weight_decay": 1e-2}),
}


def main() -> None:
    """Parse the arguments, train and count what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), help="some of the flows")
    parser.add_argument("--again", action="store_true", help="repeat what is in runaways.json")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of runaways.json")
    arguments = parser.parse_args()

    path = arguments.output / "runaways.json"
    asked = {"steps": arguments.steps, "samples": arguments.samples}
    known = read(path)
    if known.get("asked") != asked:
        known = {"asked": asked, "flows": {}}
    data = mf.data.load("mnist")
    for name in arguments.only or CHANGES:
        if name in known["flows"] and not arguments.again:
            continue
        flow = train(data, CHANGES[name], arguments.steps)
        found = known["flows"]
        found[name] = measure(flow, data, arguments.samples)
        for bound in AFTERWARDS if name == FIRST else ():
            for step in flow.modules():
                if isinstance(step, MaskedAutoregressiveTransform):
                    step.univariate = within(bound)
            found[f"its log-scales within {bound:g} afterwards"] = measure(
                flow, data, arguments.samples
            )
        known["machine"] = machine(("torch", "numba"))
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
        write(path, known, report(known))
    print(report(known))


def train(data: Dataset, change: Change, steps: int) -> Flow:
    """A flow in pixels' units, trained by so many steps of 100 images."""
    shape = {"transforms": 5, "hidden_features": (512, 512), "batch_norm": True, "widen": False}
    generator = torch.Generator().manual_seed(0)
    core = mf.flows.MAF(data.features, generator=generator, **shape | change.flow)
    flow = Flow([*data.preprocessing().transforms, *core.transform.transforms], core.base)
    settings = {"lr": 1e-3, "schedule": "cosine", "steps": steps} | change.training
    judges = Split(data.validation.x[:ROWS])
    fit(flow, Split(data.train.x), judges, TrainConfig(epochs=1000, **settings))
    return flow


@torch.no_grad()
def measure(flow: Flow, data: Dataset, samples: int) -> dict[str, float]:
    """How good a flow is, and how many of its samples ran away."""
    steps = list(flow.transform.transforms)
    number = next(i for i, step in enumerate(steps) if isinstance(step, Logit)) + 1
    front, rest = (LazyComposedTransform(*part) for part in (steps[:number], steps[number:]))
    known = evaluate(flow, data.train.x[:ROWS])
    level = float(2 * known.min() - known.median())
    generator = torch.Generator().manual_seed(0)
    largest, low = [], 0
    for _ in range(samples // 1000):
        logits = rest().inv(flow.base().sample((1000,), generator=generator))
        largest.append(logits.abs().amax(dim=1))
        pixels = front().inv(logits.nan_to_num()).clamp(0, 255)
        lost = ~logits.isfinite().all(dim=1)
        low += int((lost | (evaluate(flow, pixels) < level)).sum())
    found = torch.cat(largest)
    return {
        "nll": -float(evaluate(flow, data.validation.x[:ROWS]).mean()),
        "beyond": int((~(found <= END)).sum()),
        "beyond 30": int((~(found <= 30)).sum()),
        "largest": float(found.nan_to_num(math.inf).max()),
        "level": level,
        "low": low,
    }


def report(known: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    samples = known["asked"]["samples"]
    head = [
        f"of {samples:,} samples",
        "NLL, nats",
        "a logit beyond 13.8",
        "beyond 30",
        "largest logit",
        "far below all training rows",
    ]
    lines = [head]
    for name, one in known["flows"].items():
        counts = [f"{one[key]:,}" for key in ("beyond", "beyond 30")]
        lines.append(
            [name, f"{one['nll']:.1f}", *counts, f"{one['largest']:.3g}", f"{one['low']:,}"]
        )
    steps = f"{known['asked']['steps']:,} steps of 100 images."
    return f"{steps}\n\n{markdown(lines)}\n\n{machine_table(known['machine'])}\n"


if __name__ == "__main__":
    main()
