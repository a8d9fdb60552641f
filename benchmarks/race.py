"""How long it takes to the MAF paper's MAF (5) on POWER: ours beside zuko's, by one recipe.

    python benchmarks/race.py [--epochs 4] [--batch-size 200] [--lr 3e-3] [--seeds 0 1 2]

Both flows have five affine layers with networks of two hidden layers of 100 units, no batch norm,
first weights of their own, and the same steps of Adam: the same rows in the same order, the same
rates on a cosine, gradients clipped to the same norm. Ours is trained by `maskedflow.training.fit`,
zuko's by a plain loop of torch with a fused Adam. They take turns in one process, on one thread, an
epoch each, and after each epoch all validation rows judge both.

Counted are seconds of the processor, so that other work does not count, until these rows' mean
log-density first is 0.14 nats, the paper's on test rows: shuffling, steps and validation, after a
warm-up on other rows. Writes benchmarks/results/race.json after each epoch, and race.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import zuko
from pages import RESULTS, machine_table, markdown, read, write
from timing import machine
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.training import TrainConfig, evaluate, fit
from maskedflow.training.batches import bounds, order_of

GOAL = 0.14
SHAPE: dict[str, Any] = {"transforms": 5, "hidden_features": (100, 100)}

#: Of a side, an epoch each: the seconds of the processor so far, and the validation rows' mean.
Epochs = list[tuple[float, float]]


def main() -> None:
    """Parse the arguments, run the race for each seed, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of race.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)

    data = mf.data.load("power")
    recipe = TrainConfig(
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        lr=asked.lr,
        schedule="cosine",
        weight_decay=0.0,
    )
    path = asked.output / "race.json"
    known: dict[str, Any] = {"recipe": asdict(recipe), "races": {}}
    known["machine"] = machine(("torch", "numba", "zuko"))
    if (earlier := read(path)).get("recipe") == known["recipe"]:
        known["races"] = earlier["races"]
    for seed in asked.seeds:
        sides = ours, theirs = [[], []]
        one = replace(recipe, seed=seed)
        for mine, peers in zip(
            ours_by_epochs(data.train.x, data.validation.x, one),
            zukos_by_epochs(data.train.x, data.validation.x, one),
            strict=True,
        ):
            ours.append(mine)
            theirs.append(peers)
            known["races"][str(seed)] = {"maskedflow": ours, "zuko": theirs}
            write(path, known, report(known))
            if all(reached(side) for side in sides):
                break
        print(report(known), file=sys.stderr, flush=True)


def ours_by_epochs(x: Tensor, judges: Tensor, recipe: TrainConfig) -> Iterator[tuple[float, float]]:
    """Trains our flow, an epoch at a time."""
    warm_up = TrainConfig(epochs=1, batch_size=recipe.batch_size)
    fit(mf.flows.MAF(6, **SHAPE), torch.randn(1000, 6), torch.randn(1000, 6), warm_up)
    generator = torch.Generator().manual_seed(recipe.seed)
    flow = mf.flows.MAF(6, generator=generator, **SHAPE)
    steps = recipe.epochs * len(bounds(len(x), recipe.batch_size, merge=False))
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(1, recipe.epochs + 1):
            part = replace(recipe, epochs=epoch, lr_steps=steps)
            begun = time.process_time()
            history = fit(flow, x, judges, part, directory=folder, resume=True)
            seconds += time.process_time() - begun
            yield seconds, -history.validation_nll[-1]


def zukos_by_epochs(
    x: Tensor, judges: Tensor, recipe: TrainConfig
) -> Iterator[tuple[float, float]]:
    """Trains zuko's flow, an epoch at a time."""
    torch.manual_seed(recipe.seed)
    flow = zuko.flows.MAF(6, **SHAPE)
    optimizer = torch.optim.Adam(flow.parameters(), fused=True)
    flow().log_prob(judges[:1000]).mean().backward()  # the first call is the slowest
    batches = bounds(len(x), recipe.batch_size, merge=False)
    steps, step, seconds = recipe.epochs * len(batches), 0, 0.0
    for epoch in range(1, recipe.epochs + 1):
        begun = time.process_time()
        order = order_of(len(x), recipe.seed, epoch)
        for start, end in batches:
            optimizer.param_groups[0]["lr"] = recipe.lr_at(step, steps)
            optimizer.zero_grad()
            loss = -flow().log_prob(x[order[start:end]]).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(flow.parameters(), recipe.clip)
            optimizer.step()
            step += 1
        score = float(evaluate(flow, judges).mean())
        seconds += time.process_time() - begun
        yield seconds, score


def reached(epochs: Epochs) -> float | None:
    """The seconds until the goal was reached; None if it was not."""
    return next((seconds for seconds, score in epochs if score >= GOAL), None)


def report(known: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    lines = [
        ["seed", "epoch", "ours, nats", "seconds", "zuko's, nats", "seconds", "seconds / seconds"]
    ]
    ratios, times = [], []
    for seed, sides in known["races"].items():
        pairs = zip(sides["maskedflow"], sides["zuko"], strict=True)
        for epoch, ((ours, mine), (theirs, peers)) in enumerate(pairs, 1):
            cells = [f"{mine:.3f}", f"{ours:.1f}", f"{peers:.3f}", f"{theirs:.1f}"]
            lines.append([seed, str(epoch), *cells, f"{theirs / ours:.1f}"])
        both = reached(sides["maskedflow"]), reached(sides["zuko"])
        if all(both):
            times.append(both)
            ratios.append(both[1] / both[0])
    text = "Not reached yet."
    if ratios:
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        text = (
            f"To {GOAL} nats of validation rows (medians; seeds: {', '.join(known['races'])}): "
            f"ours {ours:.0f} seconds of one core, zuko's {theirs:.0f}, "
            f"{statistics.median(ratios):.1f} times as many."
        )
    recipe = known["recipe"]
    head = f"Batches of {recipe['batch_size']}, rates from {recipe['lr']:g} down a cosine."
    return f"{text}\n\n{head}\n\n{markdown(lines)}\n\n{machine_table(known['machine'])}\n"


if __name__ == "__main__":
    main()
