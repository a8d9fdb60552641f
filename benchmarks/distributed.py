"""Times training by two processes beside one, and ways in which two may add up gradients.

    python benchmarks/distributed.py [--quick]

Strong scaling: the batch is the same, and each process has one thread. All sides take turns, in
processes that sleep meanwhile; rows per second are medians over rounds, of a training of so many
steps and one of twice as many, the first subtracted from the second. Two trainings that know
nothing of each other, of half a batch each, say what this machine could give at most. Writes
`benchmarks/results/distributed.{json,md}`; a quick run prints, and writes with `--output` only.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
from pages import RESULTS, machine_table, markdown, number, write
from timing import machine
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import maskedflow as mf
from maskedflow.training import Ranks, TrainConfig
from maskedflow.training import distributed as together
from maskedflow.training.step import step_if_finite

GOAL = 1.7
LEARNING_RATE, CLIP = 1e-4, 5.0
ONE, TWO = "one process", "two processes"
MESSAGES = "two, by messages"
FLAT, DDP = "two, a loop of one's own with one vector", "two, a loop of one's own with DDP"
APART = "two that do not add up, of half a batch each"
SIDES = (ONE, TWO, APART, MESSAGES, FLAT, DDP)


@dataclass(frozen=True)
class Size:
    """A flow, a batch, and the steps that take about a second."""

    name: str
    features: int
    hidden: tuple[int, ...]
    batch: int
    steps: int

    def flow(self) -> mf.flows.Flow:
        source = torch.Generator().manual_seed(0)
        return mf.flows.MAF(
            self.features, transforms=5, hidden_features=self.hidden, generator=source
        )

    def rows(self) -> Tensor:
        source = torch.Generator().manual_seed(0)
        return torch.randn(2 * self.steps * self.batch, self.features, generator=source)


SIZES = (
    Size("MNIST", 784, (1024,), 100, 25),
    Size("MNIST", 784, (1024,), 1000, 4),
    Size("BSDS300", 63, (512, 512), 100, 150),
    Size("BSDS300", 63, (512, 512), 1000, 20),
)


class LogProb(nn.Module):
    """The call that DistributedDataParallel can wrap: a lazy flow's gives a distribution."""

    def __init__(self, flow: mf.flows.Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        log_prob: Tensor = self.flow().log_prob(x)
        return log_prob


def fitted(size: Size, steps: int, ranks: Ranks | None = None) -> Callable[[], object]:
    """A training by this library, in batches of half the rows if by a rank alone."""
    batch = size.batch if ranks is None else size.batch // 2
    flow, x = size.flow(), size.rows()
    config = TrainConfig(epochs=2, batch_size=batch, lr=LEARNING_RATE, clip=CLIP, steps=steps)
    return lambda: mf.training.fit(flow, x[: steps * batch], x[:64], config, ranks=ranks)


def looped(size: Size, steps: int, *, wrapped: bool) -> Callable[[], object]:
    """A plain loop, whose gradients are averaged by DistributedDataParallel or as one vector."""
    ranks, module = Ranks(), LogProb(size.flow())
    parameters = [*module.parameters()]
    count = sum(one.numel() for one in parameters)
    gradients = None if wrapped else together.GradientSum(ranks, count, parameters[0].detach())
    call: nn.Module = (
        DistributedDataParallel(module, forward_sync_buffers=False) if wrapped else module
    )
    adam = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
    x = size.rows()

    def run() -> None:
        for step in range(steps):
            first, last = ranks.share(step * size.batch, (step + 1) * size.batch)
            adam.zero_grad(set_to_none=True)
            loss = -call(x[first:last]).mean()
            loss.backward()
            if gradients is not None:
                loss = gradients.take(parameters, loss.detach()) / ranks.size
                for one in parameters:
                    assert one.grad is not None
                    one.grad /= ranks.size
            step_if_finite(adam, loss, LEARNING_RATE, CLIP)

    return run


def seconds(side: str, size: Size) -> float:
    """The time of a size's steps, on one side: that of twice as many less that of once."""
    together.WORTH_SHARING = 2**60 if side == MESSAGES else 2**16
    took = []
    for steps in (size.steps, 2 * size.steps):
        if side in (FLAT, DDP):
            call = looped(size, steps, wrapped=side == DDP)
        else:
            call = fitted(size, steps, Ranks(alone=True) if side == APART else None)
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return took[1] - took[0]


def serve(rank: int, processes: int, place: str, pipe: Connection) -> None:
    """Times what it is asked for, together with the others."""
    torch.set_num_threads(1)
    if processes > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{place}", rank=rank, world_size=processes
        )
    while (asked := pipe.recv()) is not None:
        pipe.send(seconds(*asked))
    if processes > 1:
        distributed.destroy_process_group()


def measure(sizes: tuple[Size, ...], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Rows per second of each side, in every round."""
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[int, list[Connection]] = {1: [], 2: []}
    workers = []
    with tempfile.TemporaryDirectory() as folder:
        for processes, ends in pipes.items():
            for rank in range(processes):
                ours, theirs = spawn.Pipe()
                ends.append(ours)
                place = os.path.join(folder, "store")
                workers.append(spawn.Process(target=serve, args=(rank, processes, place, theirs)))
                workers[-1].start()
        found: dict[str, dict[str, list[float]]] = {}
        for size in sizes:
            rates = found[f"{size.name}, {size.batch} rows"] = {side: [] for side in SIDES}
            for turn in range(rounds + 1):  # the first warms up
                for side in SIDES:
                    ends = pipes[1 if side == ONE else 2]
                    for pipe in ends:
                        pipe.send((side, size))
                    took = max(pipe.recv() for pipe in ends)
                    if turn:
                        rates[side].append(size.steps * size.batch / took)
            print(f"{size.name}, {size.batch} rows: done", file=sys.stderr, flush=True)
        for pipe in (*pipes[1], *pipes[2]):
            pipe.send(None)
        for worker in workers:
            worker.join()
    return found


def report(found: dict[str, dict[str, list[float]]], setting: dict[str, str | int]) -> str:
    """Rows per second, and how many times one process's they are."""
    rows = [["size and batch", *SIDES]]
    for name, rates in found.items():
        one = median(rates[ONE])
        cells = [
            f"{number(median(rates[side]))} ({median(rates[side]) / one:.2f})" for side in SIDES
        ]
        rows.append([name, *cells])
    reached = [
        name for name, rates in found.items() if median(rates[TWO]) >= GOAL * median(rates[ONE])
    ]
    return (
        "\n\n".join(
            (
                "# Training by two processes",
                "Rows per second, in brackets over those of one process; one thread each, float32, "
                "five affine transforms, medians.",
                markdown(rows),
                f"At least {GOAL} times one process: {', '.join(reached) or 'nowhere'}.",
                machine_table(setting),
            )
        )
        + "\n"
    )


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="sizes with this in their names")
    parser.add_argument("--output", type=Path, help="folder of distributed.json and distributed.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = tuple(size for size in SIZES if arguments.only in f"{size.name} {size.batch}")
    found = measure(sizes, 1 if arguments.quick else arguments.rounds)
    assert all(math.isfinite(rate) for rates in found.values() for rate in rates[ONE])
    setting = machine(("torch", "numba"))
    text = report(found, setting)
    print(text)
    output = arguments.output or (None if arguments.quick or arguments.only else RESULTS)
    if output is not None:
        write(output / "distributed.json", {"machine": setting, "rows_per_second": found}, text)


if __name__ == "__main__":
    main()
