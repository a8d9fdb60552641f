"""Times maskedflow, zuko, nflows and flowjax side by side, and compares with the goals.

    python benchmarks/peers.py [--only NAME ...] [--cells CELL ...] [--sides SIDE ...] [--quick]

All cells of a configuration take turns in one run; warm-up, and with it compilation, is not
counted. The whole run takes about a quarter of an hour on two cores that do nothing else. It
writes `benchmarks/results/peers.{json,md}`; a run of less prints, and writes with `--output` only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from goals import GOALS, goals_table, memory_table, times_table
from pages import RESULTS, machine_table, markdown, write
from sides import CELLS, COMPILED, CONFIGURATIONS, SIDES, Cells, Configuration, make_ours
from timing import Job, alternate, machine, peak_memory, resident
from torch import nn

PACKAGES = {
    "zuko": ("zuko",),
    COMPILED: ("zuko",),
    "nflows": ("nflows",),
    "flowjax": ("flowjax", "jax"),
}
#: The steps of Adam between the two errors.
STEPS = 30
#: Gradients stay when a cell has made them, and so do Adam's moments.
MEMORY_ORDER = ("log_prob", "sample", "log_prob + backward", "rsample + backward", "train step")

NOTE = """Medians in seconds, and in brackets the peer's time divided by ours. float32, affine maps.

- `~`: a peer's inverse repeats one pass of a transform D times. Here some passes of one transform
  were timed and multiplied:
  {parts}.
  Memory of `rsample + backward`, whose graph grows with the passes, is multiplied alike; that of
  `sample` is not.
- Timed once, without a warm-up: {once}.
- zuko, compiled: its density, or its loss, under `torch.compile`; nothing where there is no C++
  compiler.
- nflows has residual MADEs; used here are its plain ones, with a ReversePermutation between them.
- Train step: zero_grad, forward, backward, Adam; ours is fused as in `maskedflow.training.fit`,
  torch's default for zuko and nflows, optax's in flowjax, jitted as its `fit_to_data` does.
- Memory: the peak of a process of one side in the second call of a cell, above what it had when all
  was imported and compiled for a tiny flow: weights, activations, gradients, Adam's moments.
- Error: the largest |f(x) - z| of a batch x = f^-1(z), of a fresh flow and after {steps} steps of
  training, with its default rate and clipping, on correlated normal rows.
"""


def main() -> None:
    """Measures, prints and writes."""
    arguments = parse()
    if arguments.memory:
        name, side = arguments.memory
        print(json.dumps(memory_of(find(name, arguments.quick), side, arguments.cells)))
        return
    shapes = [
        find(shape.name, arguments.quick)
        for shape in CONFIGURATIONS
        if arguments.only is None or shape.name in arguments.only
    ]
    seconds: dict[tuple[str, str, str], float] = {}
    memory: dict[tuple[str, str, str], float] = {}
    errors: dict[str, dict[str, float]] = {}
    details = []
    for shape in shapes:
        jobs = measure(shape, arguments)
        for job in jobs:
            seconds[job.key] = job.median
            record = dict(zip(("configuration", "side", "cell"), job.key, strict=True))
            details.append(
                record
                | {"median": job.median}
                | {
                    "multiplied_with": job.scale,
                    "calls": len(job.seconds),
                    "fastest": job.scale * min(job.seconds),
                }
            )
        del jobs
        gc.collect()
        if not arguments.cells and "maskedflow" in arguments.sides:
            say(f"{shape.name}: errors")
            errors[shape.name] = worst_errors(shape, 2 if arguments.quick else STEPS)
        if not arguments.no_memory:
            for side in arguments.sides:
                if side == COMPILED:
                    continue  # what it takes to compile hides what a call takes
                say(f"{shape.name}: memory of {side}")
                memory |= fresh_memory(shape, side, arguments)
        print(f"\n## {shape.name}\n\n{markdown(times_table(shape, seconds))}\n", flush=True)

    of_peers = (name for side in arguments.sides for name in PACKAGES.get(side, ()))
    setting = machine(("torch", "numba", *of_peers))
    text = report(shapes, seconds, memory, errors, setting)
    print("\n" + text)
    part = arguments.quick or arguments.only or arguments.cells or arguments.sides != list(SIDES)
    output = arguments.output or (None if part else RESULTS)
    if output is None:
        return
    for record in details:
        key = record["configuration"], record["side"], record["cell"]
        record["peak_bytes"] = memory.get(key)
    result = {
        "machine": setting,
        "configurations": [asdict(shape) for shape in shapes],
        "times": details,
        "goals": [asdict(goal) | {"measured": goal.ratio(seconds)} for goal in GOALS],
        "errors": errors,
    }
    write(output / "peers.json", result, text)


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [shape.name for shape in CONFIGURATIONS]
    parser.add_argument("--only", nargs="+", choices=names, help="configurations")
    parser.add_argument("--cells", nargs="+", choices=CELLS, help="what to time; no errors then")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--quick", action="store_true", help="one call each, and few passes")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for each cell")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--output", type=Path, help="folder of peers.json and peers.md")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def find(name: str, quick: bool = False) -> Configuration:
    """The configuration of that name; a quick one where peers do two passes of an inverse."""
    shape = next(shape for shape in CONFIGURATIONS if shape.name == name)
    return replace(shape, sample_passes=2, rsample_passes=2, whole=()) if quick else shape


def measure(shape: Configuration, arguments: argparse.Namespace) -> list[Job]:
    """Times the cells of a configuration, every side's in turns."""
    jobs = []
    for side in arguments.sides:
        say(f"{shape.name}: making {side}")
        for cell, call in chosen_cells(shape, side, arguments.cells).items():
            warm_up = cell != "sample" or side not in shape.whole
            jobs.append(Job((shape.name, side, cell), call, shape.scale(side, cell), warm_up))
    say(f"{shape.name}: {len(jobs)} cells in turns")
    if arguments.quick:
        alternate(jobs, rounds=1, budget=0.0, least=0.0)
    else:
        alternate(jobs, arguments.rounds, arguments.budget)
    return jobs


def chosen_cells(shape: Configuration, side: str, cells: Sequence[str] | None) -> Cells:
    """What of a side is to be measured."""
    torch.manual_seed(0)
    every = SIDES[side](shape)
    chosen = shape.cells if cells is None else [cell for cell in shape.cells if cell in cells]
    return {cell: every[cell] for cell in chosen if cell in every}


def fresh_memory(
    shape: Configuration, side: str, arguments: argparse.Namespace
) -> dict[tuple[str, str, str], float]:
    """Peak memory of the cells of a side, in a process of its own."""
    command = [sys.executable, __file__, "--memory", shape.name, side]
    command += ["--quick"] if arguments.quick else []
    command += ["--cells", *arguments.cells] if arguments.cells else []
    # Freed memory goes back to the system at once, so that each cell is seen by itself.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    return {(shape.name, side, cell): value for cell, value in found.items()}


def memory_of(shape: Configuration, side: str, cells: Sequence[str] | None) -> dict[str, float]:
    """Peak memory of the cells of a side, in this process; nothing if the system does not say."""
    for call in SIDES[side](Configuration("tiny", 4, (8,), 2)).values():
        call()  # imports, starts threads, compiles
    if sys.platform != "linux":
        return {}
    imported = resident()
    chosen = chosen_cells(shape, side, cells)
    found = {}
    for cell in sorted(chosen, key=MEMORY_ORDER.index):
        chosen[cell]()
        gc.collect()
        before = resident()
        growth = peak_memory(chosen[cell]) - before
        # A graph grows with the passes, and nothing else does.
        scale = shape.scale(side, cell) if cell == "rsample + backward" else 1.0
        found[cell] = before - imported + scale * growth
    return found


def worst_errors(shape: Configuration, steps: int) -> dict[str, float]:
    """The largest |f(x) - z| of a fresh flow, and after steps with training's rate and clipping."""
    torch.manual_seed(0)
    flow = make_ours(shape)
    found = {"fresh": worst_error(flow, shape)}
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True)
    mixing = torch.randn(shape.features, shape.features) / shape.features**0.5
    for _ in range(steps):
        x = torch.randn(shape.batch, shape.features) @ mixing
        optimizer.zero_grad()
        (-flow().log_prob(x).mean()).backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
    return found | {f"after {steps} steps": worst_error(flow, shape)}


@torch.no_grad()
def worst_error(flow: nn.Module, shape: Configuration) -> float:
    """The largest |f(x) - z| of a batch x = f^-1(z)."""
    transform = flow().transform
    z = torch.randn(shape.batch, shape.features)
    return float((transform(transform.inv(z)) - z).abs().max())


def report(
    shapes: Sequence[Configuration],
    seconds: dict[tuple[str, str, str], float],
    memory: dict[tuple[str, str, str], float],
    errors: dict[str, dict[str, float]],
    setting: dict[str, str | int],
) -> str:
    """All of it as Markdown."""
    parts, once = [], []
    for shape in shapes:
        for cell in ("sample", "rsample + backward"):
            passes = shape.passes("nflows", cell)
            if cell in shape.cells and passes is not None:
                whole = shape.transforms * shape.features
                parts.append(f"{shape.name} {cell} {passes} of {whole:,}")
        once += [f"{side}'s sample of {shape.name}" for side in shape.whole]
    sections = ["# Beside the peers", markdown(goals_table(seconds, errors))]
    parts, once = parts or ["nowhere"], once or ["nothing"]
    sections.append(NOTE.format(parts="; ".join(parts), once="; ".join(once), steps=STEPS).strip())
    for shape in shapes:
        title = (
            f"## {shape.name}\n\n{shape.features:,} features, {shape.transforms} transforms, "
            f"hidden {shape.hidden}, batch {shape.batch:,}."
        )
        if shape.name in errors:
            found = (f"{value:.1e} {name}" for name, value in errors[shape.name].items())
            title += f" Worst error of sample -> latent: {', '.join(found)}."
        sections += [title, markdown(times_table(shape, seconds))]
        if any(key[0] == shape.name for key in memory):
            sections.append(markdown(memory_table(shape, memory)))
    sections += ["## Machine", machine_table(setting)]
    return "\n\n".join(sections) + "\n"


def say(line: str) -> None:
    """Says what goes on, beside what is printed as a result."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
