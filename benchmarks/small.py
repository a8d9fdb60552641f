"""Times small flows beside the peers: training steps, single rows, and what else a user waits for.

    python benchmarks/small.py [--only NAME ...] [--sides SIDE ...] [--quick]

For one thread, and for two, a process of its own, in which all sides of a configuration take turns;
warm-up, and with it compilation, is not counted. The whole run takes half an hour on two cores that
do nothing else, half of it in torch.compile. It writes `benchmarks/results/small.{json,md}`; a run
of less prints, and writes with `--output` only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numba
import numpy as np
import torch
from goals import Goal, Seconds, goal_row
from pages import RESULTS, machine_table, markdown, number, write
from sides import LEARNING_RATE, SIDES, Configuration, make_ours
from timing import Difference, Job, alternate, machine

import maskedflow as mf
from maskedflow.kernels.tile import PANEL_BYTES, add_product
from maskedflow.nn import MaskedLinear

STEP = "train step"
#: The training of this library, and its flow in a loop of one's own.
FIT, LOOP = "maskedflow fit", "maskedflow"
EVERY_SIDE = (FIT, *SIDES)
THREADS = (1, 2)

_step = partial(Configuration, cells=(STEP,))
CONFIGURATIONS = (
    _step("MAF-2", 2, (64, 64), 256),
    _step("MAF-5-10", 5, (50, 50), 200, context=10),
    _step("MAF-10", 10, (64, 64), 256),
    _step("MAF-6", 6, (100, 100), 1000),
    _step("MAF-20", 20, (128, 128), 256),
    _step("MAF-63", 63, (512, 512), 1000),
    _step("NSF-5-10", 5, (50, 50), 200, context=10, bins=8),
    _step("NSF-6", 6, (256, 256), 1000, bins=16),
    _step("MAF-MoG-6", 6, (100, 100), 1000, components=10),
    Configuration("row-5-10", 5, (50, 50), 1, context=10, cells=("log_prob", "sample")),
)
COMPILATION, NEIGHBOUR = "compilation", "neighbour"
#: Whose step is timed beside a busy core.
BESIDE = ("MAF-6", "MAF-63")
NAMES = (*(shape.name for shape in CONFIGURATIONS), COMPILATION, NEIGHBOUR)

#: The most batches of an epoch of a fit, and the most numbers in it.
EPOCH, NUMBERS = 2000, 20_000_000
#: About the seconds of two fits, one twice as long.
PAIR = 1.5


def _goals(name: str, peer: str, goal: float, stretch: float, cell: str = STEP) -> Goal:
    own = FIT if cell == STEP else LOOP
    return Goal(name, (peer, cell), (own, cell), ">=", goal, stretch)


GOALS = (
    *(_goals(name, "zuko", 6, 12) for name in ("MAF-2", "MAF-5-10", "MAF-10")),
    *(_goals(name, "flowjax", 4, 7) for name in ("MAF-2", "MAF-5-10", "MAF-10")),
    *(_goals("MAF-6", peer, 4, 6) for peer in ("zuko", "flowjax")),
    _goals("MAF-20", "zuko", 3, 6),
    _goals("MAF-63", "zuko", 3, 4),
    _goals("NSF-5-10", "zuko", 5, 10),
    _goals("NSF-6", "zuko", 3, 5),
    _goals("row-5-10", "zuko", 5, 10, "log_prob"),
    _goals("row-5-10", "zuko", 20, 50, "sample"),
)
#: Goal and stretch of the seconds that all kernels take to compile, and of a step's slowing down.
COMPILATION_GOAL = 10, 5
NEIGHBOUR_GOAL = 2.2, 1.5

#: What compiles all kernels where none is in the cache.
FIRST = """
import torch
import maskedflow as mf
rows = mf.data.Split(torch.randn(20, 3))
config = mf.training.TrainConfig(steps=1, batch_size=20)
for make in (mf.flows.MAF, mf.flows.NSF):
    flow = make(3, transforms=1, hidden_features=(8,))
    mf.training.fit(flow, rows, rows, config)
    flow().sample((2,))
"""
SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
while True: pass
"""

NOTE = """Medians in milliseconds, and in brackets the time divided by ours: `fit`'s for a training
step, and for a row that of the same call. float32, 5 transforms, one process for each number of
threads.

- MAF-5-10: 5 features given a context of 10. NSF-5-10 has 8 bins, NSF-6 has 16. MAF-MoG-6 has a
  MADE with 10 components as its base, which no peer has. row-5-10 is MAF-5-10 with batches of one
  row: `flow(c).log_prob(x)`, or `flow(c).sample()`.
- A step is zero_grad, forward, backward, Adam. `maskedflow` is a loop of one's own with torch's
  fused Adam; `maskedflow fit` a step of `maskedflow.training.fit`: the difference of two fits, one
  of which takes twice as many steps of an epoch. It also picks each batch's
  rows, clips the gradient and looks whether it is finite. Adam is torch's default for zuko and
  nflows, and optax's for flowjax, whose step is that of its `fit_to_data`.
- zuko, compiled: its density, or its loss, under `torch.compile`; nothing where there is no C++
  compiler. Its sampler is not compiled.
- nflows has residual MADEs; used here are its plain ones, with a ReversePermutation between them.
- Arithmetic alone: three multiplications for each weight that no mask hides and each row of the
  batch, forward, for the inputs' gradient, and for the weights', at the rate of the kernel's small
  product in the cache ({rate} billion a second and thread).
- First compilation: a process that trains and samples an affine and a spline flow, with an empty
  cache and with a full one, and their difference. The other core is kept busy by an endless loop.
"""


def main() -> None:
    """Measures, prints and writes."""
    arguments = parse()
    shapes = [shape for shape in CONFIGURATIONS if shape.name in arguments.only]
    if arguments.threads:
        print(json.dumps(times(shapes, arguments)))
        return
    rate = multiplication_rate()
    found = [one for threads in THREADS if shapes for one in apart(threads, arguments)]
    others = {}
    if COMPILATION in arguments.only:
        others[COMPILATION] = compilation(1 if arguments.quick else 3)
    if NEIGHBOUR in arguments.only and sys.platform == "linux":
        others |= {name: slowed(name, arguments) for name in BESIDE}
    setting = machine(("torch", "numba", "zuko", "nflows", "flowjax", "jax"))
    del setting["threads of torch"]  # not those of what was measured
    text = report(shapes, found, others, rate, setting)
    print(text)
    part = arguments.quick or set(arguments.only) < set(NAMES) or arguments.sides != EVERY_SIDE
    output = arguments.output or (None if part else RESULTS)
    if output is None:
        return
    result = {
        "machine": setting,
        "configurations": [asdict(shape) for shape in shapes],
        "times": found,
        "multiplications_per_second": rate,
        "goals": [asdict(goal) | {"measured": goal.ratio(seconds_of(found, 1))} for goal in GOALS],
        "others": others,
    }
    write(output / "small.json", result, text)


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="what to measure")
    parser.add_argument("--sides", nargs="+", choices=EVERY_SIDE, default=EVERY_SIDE)
    parser.add_argument("--quick", action="store_true", help="one call each")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for each cell")
    parser.add_argument("--output", type=Path, help="folder of small.json and small.md")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def apart(
    threads: int,
    arguments: argparse.Namespace,
    only: Sequence[str] | None = None,
    sides: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """The times in a process of so many threads."""
    command = [sys.executable, __file__, "--threads", str(threads)]
    command += ["--only", *(only or arguments.only), "--sides", *(sides or arguments.sides)]
    command += ["--rounds", str(arguments.rounds), "--budget", str(arguments.budget)]
    command += ["--quick"] if arguments.quick else []
    # jax counts its threads when it starts
    environment = os.environ | {"PJRT_NPROC": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def times(shapes: Sequence[Configuration], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Times every side of the configurations in turns, in this process."""
    torch.set_num_threads(arguments.threads)
    found = []
    for shape in shapes:
        jobs = []
        for side in arguments.sides:
            say(f"{shape.name}, {arguments.threads} threads: making {side}")
            torch.manual_seed(0)
            jobs += list(jobs_of(shape, side))
        say(f"{shape.name}, {arguments.threads} threads: {len(jobs)} cells in turns")
        if arguments.quick:
            alternate(jobs, rounds=1, budget=0.0, least=0.0)
        else:
            alternate(jobs, arguments.rounds, arguments.budget)
        for job in jobs:
            record = dict(zip(("configuration", "side", "cell"), job.key, strict=True))
            spent = {"median": job.median, "calls": len(job.seconds)}
            found.append({"threads": arguments.threads} | record | spent)
        del jobs
        gc.collect()
    return found


def jobs_of(shape: Configuration, side: str) -> Iterator[Job]:
    """What of a side is to be timed."""
    if side != FIT:
        cells = SIDES[side](shape)
        yield from (Job((shape.name, side, c), cells[c]) for c in shape.cells if c in cells)
    elif STEP in shape.cells:
        yield fitting(shape)


def fitting(shape: Configuration) -> Difference:
    """A step of `maskedflow.training.fit`, in fits of as many steps as there is time for."""
    flow = make_ours(shape)
    epoch = min(EPOCH, NUMBERS // (shape.batch * (shape.features + shape.context)))
    rows, few = epoch * shape.batch, 10
    x, c = torch.randn(rows, shape.features), torch.randn(rows, shape.context)
    train = mf.data.Split(x, c if shape.context else None, checked=True)
    validation = train[:few]

    def fit(steps: int) -> None:
        config = mf.training.TrainConfig(
            steps=steps, batch_size=shape.batch, epochs=steps, patience=steps, lr=LEARNING_RATE
        )
        mf.training.fit(flow, train, validation, config)

    job = Difference((shape.name, FIT, STEP), fit)
    job.once()  # compiles
    while job.times <= epoch // 4 and job.once() < PAIR / 3:
        job.times *= 2
    return job


def multiplication_rate() -> float:
    """The multiplications a second of one thread in the kernel's product, all in its cache."""
    rows, inner, width = 48, 64, PANEL_BYTES // 4
    sizes = (rows, inner), (inner, width), (rows, width)
    a, b, c = (np.zeros(size, np.float32) for size in sizes)

    @numba.njit
    def multiply(repeats: int, a: int, b: int, c: int) -> None:
        for _ in range(repeats):
            like = np.float32(0)
            add_product(like, a, inner, 1, rows, b, width, c, width, inner, PANEL_BYTES, 0, 0, 0)

    repeats = 1000
    job = Job(("product",), lambda: multiply(repeats, *(one.ctypes.data for one in (a, b, c))))
    alternate([job], rounds=5, budget=1.0)
    return repeats * rows * inner * width / min(job.seconds)


def arithmetic(shape: Configuration, rate: float) -> float:
    """The seconds that the products of a step of ours take, and nothing else."""
    layers = [layer for layer in make_ours(shape).modules() if isinstance(layer, MaskedLinear)]
    weights = sum(int(layer.mask.sum()) for layer in layers)
    return 3 * weights * shape.batch / rate


def compilation(rounds: int) -> float:
    """The seconds by which a process takes longer that finds nothing compiled."""
    longer = []
    for _ in range(rounds):
        say("compiling all kernels")
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"NUMBA_CACHE_DIR": folder}
            moments = [time.perf_counter()]
            for _ in range(2):
                subprocess.run([sys.executable, "-c", FIRST], env=environment, check=True)
                moments.append(time.perf_counter())
        start, between, end = moments
        longer.append((between - start) - (end - between))
    return median(longer)


def slowed(name: str, arguments: argparse.Namespace) -> float:
    """How much longer a step of two threads takes beside a process that keeps one core busy."""
    ratios = []
    for _ in range(1 if arguments.quick else 3):
        alone, beside = [], []
        for found, busy in ((alone, False), (beside, True)):
            with spinning(busy):
                found += apart(2, arguments, [name], [FIT])
        ratios.append(beside[0]["median"] / alone[0]["median"])
    return median(ratios)


@contextmanager
def spinning(busy: bool) -> Iterator[None]:
    """Keeps a core busy, the last one that this process may use, if `busy`."""
    if not busy:
        yield
        return
    core = max(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", SPIN, str(core)]) as process:
        try:
            yield
        finally:
            process.kill()


def seconds_of(found: Sequence[dict[str, Any]], threads: int) -> Seconds:
    """The medians of a number of threads."""
    return {
        (one["configuration"], one["side"], one["cell"]): one["median"]
        for one in found
        if one["threads"] == threads
    }


def report(
    shapes: Sequence[Configuration],
    found: Sequence[dict[str, Any]],
    others: dict[str, float],
    rate: float,
    setting: dict[str, str | int],
) -> str:
    """All of it as Markdown."""
    note = NOTE.format(rate=number(rate / 1e9))
    sections = [
        "# Small flows beside the peers",
        markdown(goals_table(seconds_of(found, 1), others)),
        note.strip(),
    ]
    for threads in THREADS:
        seconds = seconds_of(found, threads)
        if seconds:
            sections.append("## " + ("One thread" if threads == 1 else f"{threads} threads"))
            sections.append(markdown(times_table(shapes, seconds, threads * rate)))
    sections += ["## Machine", machine_table(setting)]
    return "\n\n".join(sections) + "\n"


def goals_table(seconds: Seconds, others: dict[str, float]) -> list[list[str]]:
    """A row for each goal that was measured, and the same ratio for a loop of one's own."""
    rows = [["one thread", "measured", "goal", "stretch", "", "own loop"]]
    for goal in GOALS:
        value = goal.ratio(seconds)
        if value is not None:
            row = goal_row(str(goal), number(value), value, goal.sign, goal.goal, goal.stretch)
            own = Goal(goal.configuration, goal.over, (LOOP, goal.under[1]), goal.sign, 0, 0)
            ratio = own.ratio(seconds) if goal.under[0] == FIT else None
            rows.append([*row, "" if ratio is None else number(ratio)])
    for name, value in others.items():
        if name == COMPILATION:
            title, limits = "first compilation on a machine, all kernels (s)", COMPILATION_GOAL
        else:
            title = f"{name}: step beside a busy core / alone, two threads allowed"
            limits = NEIGHBOUR_GOAL
        rows.append([*goal_row(title, number(value), value, "<=", *limits), ""])
    return rows


def times_table(shapes: Sequence[Configuration], seconds: Seconds, rate: float) -> list[list[str]]:
    """Milliseconds of each side, and in brackets how often ours fits into another's."""
    rows = [["ms", "hidden", "batch", *EVERY_SIDE, "arithmetic alone"]]
    for shape in shapes:
        for cell in shape.cells:
            name = shape.name if cell == STEP else f"{shape.name}: {cell}"
            values = [seconds.get((shape.name, side, cell)) for side in EVERY_SIDE]
            own = next((side for side in (FIT, LOOP) if (shape.name, side, cell) in seconds), None)
            row = [name, " ".join(map(str, shape.hidden)), f"{shape.batch:,}"]
            for side, value in zip(EVERY_SIDE, values, strict=True):
                shown = "" if value is None else number(1e3 * value)
                if value is not None and own not in (None, side):
                    shown += f" ({number(value / seconds[shape.name, own, cell])})"
                row.append(shown)
            row.append(number(1e3 * arithmetic(shape, rate)) if cell == STEP else "")
            rows.append(row)
    return rows


def say(line: str) -> None:
    """Says what goes on, beside what is printed as a result."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
