"""Seconds, bytes, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch

import maskedflow

#: A turn repeats its call for so many seconds: the first call finds others' data in the cache.
TURN = 0.1


@dataclass
class Job:
    """Something to be timed, and what its calls took.

    Args:
        key: Names it.
        call: What is timed; it must wait for its result.
        scale: What a time is multiplied with, for a call that does a known part of the work.
        warm_up: Whether to call it once, or as long as a turn, before the first timed call.
    """

    key: tuple[str, ...]
    call: Callable[[], object]
    scale: float = 1.0
    warm_up: bool = True
    seconds: list[float] = field(default_factory=list)

    def once(self) -> float:
        """The seconds of a call."""
        start = time.perf_counter()
        self.call()
        return time.perf_counter() - start

    def turn(self, least: float) -> None:
        until = time.perf_counter() + least
        while True:
            self.seconds.append(self.once())
            if time.perf_counter() >= until:
                return

    @property
    def median(self) -> float:
        return self.scale * statistics.median(self.seconds)


@dataclass
class Difference(Job):
    """A call that does its work as often as it is told, and something before and after.

    Its median is the work's: that of calls which do it twice as often, less that of the others.

    Args:
        times: How often the shorter call does it.
        shorter: What the shorter calls took, each before the longer one.
    """

    call: Callable[[int], object]
    times: int = 1
    shorter: list[float] = field(default_factory=list)

    def once(self) -> float:
        start = time.perf_counter()
        self.call(self.times)
        between = time.perf_counter()
        self.call(2 * self.times)
        self.shorter.append(between - start)
        return time.perf_counter() - between

    @property
    def median(self) -> float:
        counted = self.shorter[-len(self.seconds) :]  # none of the warm-up
        return (statistics.median(self.seconds) - statistics.median(counted)) / self.times


def alternate(jobs: Sequence[Job], rounds: int, budget: float, least: float = TURN) -> None:
    """Times jobs in turns, so that a slow minute of the machine is slow for all of them.

    Args:
        jobs: What to time; each gets one turn at least.
        rounds: The number of rounds.
        budget: A job that has taken so many seconds takes no more turns, after three calls, or
            after one that took as long.
        least: The seconds of a turn.
    """
    for job in jobs:
        if job.warm_up:
            job.once()  # compiles
            job.turn(least)
            job.seconds.clear()
    for _ in range(rounds):
        for job in jobs:
            spent = sum(job.seconds)
            if not job.seconds or spent < budget or (len(job.seconds) < 3 and spent < 2 * budget):
                job.turn(least)


def count_core_seconds(*modules: ModuleType) -> None:
    """Makes modules measure seconds of one CPU core, so that other work does not count."""
    torch.set_num_threads(1)
    for module in modules:
        vars(module)["time"] = SimpleNamespace(
            monotonic=time.process_time, perf_counter=time.process_time
        )


def resident() -> int:
    """The bytes of memory that this process has; on Linux only."""
    return _status("VmRSS")


def peak_memory(call: Callable[[], object]) -> int:
    """The bytes of memory that this process has at the peak of a call; on Linux only."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # forgets the peak so far
    call()
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def machine(packages: Iterable[str]) -> dict[str, str | int]:
    """The machine, the versions and the command of this run."""
    script, *arguments = sys.argv
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        "threads of torch": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "maskedflow": maskedflow.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", f"benchmarks/{Path(script).name}", *arguments]),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")
