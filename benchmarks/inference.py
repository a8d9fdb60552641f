"""Compare flows of this library with sbi's own, as density estimators in sbi.

    python benchmarks/inference.py [--tasks two_moons ...] [--sides maf ...] [--again]
        [--output FOLDER]

Each side is passed to sbi's `NPE` as `density_estimator`, and all else is sbi's default: the
training loop, its stopping, and the rejection of samples outside of the prior. `mf.NPE` is our own
trainer, with its own defaults; its epochs are those of the better one of two flows. The
simulations are the same for all. A classifier, sbibm's, tells samples given an observation from
sbibm's reference samples of the true posterior: an accuracy of 0.5 (C2ST) is the best.

The simulators are those of sbibm, whose observations and reference samples are read as files from
its package; `pip install --no-deps sbibm==1.1.0` is enough.

Seconds are those of one CPU core rather than of a clock on the wall, so that other work does not
count. Writes sbi.json after each side of a task, and sbi.md from it.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import pandas as pd
import torch
from pages import RESULTS, machine_table, markdown, number, read, write
from sbi.inference import NPE
from sbi.inference.posteriors.base_posterior import NeuralPosterior
from sbi.utils import BoxUniform
from sbi.utils.metrics import c2st
from timing import machine
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

import maskedflow as mf

SIMULATIONS = 10_000
DRAWS = 100_000
TESTED = 5_000
OBSERVATIONS = (1, 2, 3)
PACKAGES = ("torch", "sbi", "zuko", "nflows", "scikit-learn")


def two_moons(theta: Tensor) -> Tensor:
    """A crescent whose place depends on the absolute value of a parameter."""
    angle = math.pi * (torch.rand(len(theta)) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(len(theta))
    crescent = torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], dim=1)
    a, b = theta.T
    return crescent + torch.stack([-(a + b).abs(), b - a], dim=1) / math.sqrt(2)


def slcp(theta: Tensor) -> Tensor:
    """Four points of a Gaussian in the plane, whose standard deviations are squares."""
    a, b, root_a, root_b, skew = theta.T
    scale_a, scale_b, rho = root_a**2, root_b**2, skew.tanh()
    z, w = torch.randn(2, 4, len(theta))
    x = a + scale_a * z
    y = b + scale_b * (rho * z + (1 - rho**2).sqrt() * w)
    return torch.stack([x, y], dim=-1).transpose(0, 1).flatten(1)


def gaussian_linear(theta: Tensor) -> Tensor:
    """The parameters, with noise as large as their prior."""
    return theta + math.sqrt(0.1) * torch.randn_like(theta)


def box(bound: float, parameters: int) -> Distribution:
    """A uniform prior."""
    bounds = torch.full((parameters,), bound)
    return BoxUniform(-bounds, bounds)


@dataclass(frozen=True)
class Task:
    """Parameters with a prior, and what simulates data from them."""

    prior: Distribution
    simulate: Callable[[Tensor], Tensor]


TASKS = {
    "two_moons": Task(box(1.0, 2), two_moons),
    "gaussian_linear": Task(
        MultivariateNormal(torch.zeros(10), 0.1 * torch.eye(10)), gaussian_linear
    ),
    "slcp": Task(box(3.0, 5), slcp),
}

#: What is passed to sbi; sbi's own are names. None is our own trainer instead.
SIDES: dict[str, Any] = {
    "mf.interop.sbi.maf": mf.interop.sbi.maf(),
    "mf.interop.sbi.nsf": mf.interop.sbi.nsf(),
    "mf.interop.sbi.modern": mf.interop.sbi.modern(),
    "mf.NPE": None,
    "maf": "maf",
    "zuko_nsf": "zuko_nsf",
}
OWN = ("maf", "zuko_nsf")


def main() -> None:
    """Parse the arguments, measure what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--sides", nargs="*", default=list(SIDES), choices=list(SIDES))
    parser.add_argument("--again", action="store_true", help="repeat what is in sbi.json")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of sbi.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # sbi's, of its own packages
    path = arguments.output / "sbi.json"
    known = read(path) or {"tasks": {}}
    for name in arguments.tasks:
        found = known["tasks"].setdefault(name, {})
        for side in arguments.sides:
            if side in found and not arguments.again:
                continue
            found[side] = measure(name, SIDES[side])
            print(name, side, found[side], file=sys.stderr, flush=True)
            known["machine"] = machine(PACKAGES)
            write(path, known, report(known))
    print(report(known))


def measure(name: str, density_estimator: Any) -> dict[str, Any]:
    """Trains an estimator, draws from its posteriors, and compares them with the references."""
    task = TASKS[name]
    torch.manual_seed(1)
    theta = task.prior.sample((SIMULATIONS,))
    train = train_ours if density_estimator is None else partial(train_sbis, density_estimator)
    start = time.process_time()
    posterior, epochs, validation = train(task.prior, theta, task.simulate(theta))
    training = time.process_time() - start
    references = [reference(name, which) for which in OBSERVATIONS]
    scores = [
        float(c2st(samples[:TESTED], draw(posterior, x, TESTED), classifier="mlp"))
        for x, samples in references
    ]
    return {
        "c2st": [round(score, 4) for score in scores],
        "training": round(training, 2),
        "epochs": epochs,
        "validation": round(validation, 4),
        "sampling": median(
            round(seconds(partial(draw, posterior, x, DRAWS)), 4) for x, _ in references
        ),
    }


def train_sbis(
    density_estimator: Any, prior: Distribution, theta: Tensor, x: Tensor
) -> tuple[NeuralPosterior, int, float]:
    """The posterior by sbi's trainer, its epochs, and the best validation loss."""
    trainer = NPE(prior, density_estimator=density_estimator, show_progress_bars=False)
    trainer.append_simulations(theta, x).train()
    summary = trainer.summary
    posterior = trainer.build_posterior()
    return posterior, summary["epochs_trained"][-1], summary["best_validation_loss"][-1]


def train_ours(
    prior: Distribution, theta: Tensor, x: Tensor
) -> tuple[mf.inference.DirectPosterior, int, float]:
    """The same by our own."""
    npe = mf.NPE(prior)
    posterior = npe.fit(theta, x)
    [history] = npe.histories
    return posterior, len(history.records), history.best_validation_nll


def draw(posterior: Any, x: Tensor, count: int) -> Tensor:
    """Samples of a posterior given data."""
    if isinstance(posterior, NeuralPosterior):
        return posterior.sample((count,), x=x, show_progress_bars=False)
    return posterior.sample((count,), x=x[0])


def seconds(call: Callable[[], object]) -> float:
    """The seconds of one core that a call takes."""
    start = time.process_time()
    call()
    return time.process_time() - start


def reference(task: str, which: int) -> tuple[Tensor, Tensor]:
    """An observation of sbibm, and samples of its true posterior."""
    spec = importlib.util.find_spec("sbibm")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("sbibm: not installed; pip install --no-deps sbibm==1.1.0")
    folder = Path(spec.submodule_search_locations[0], "tasks", task, "files")
    folder /= f"num_observation_{which}"
    names = "observation.csv", "reference_posterior_samples.csv.bz2"
    x, samples = (torch.from_numpy(pd.read_csv(folder / one).to_numpy("float32")) for one in names)
    return x, samples


def report(known: dict[str, Any]) -> str:
    """All of it as Markdown."""
    sections = ["# Density estimators in sbi"]
    for task, found in known["tasks"].items():
        sections += [f"## {task}", markdown(table(found))]
    own = ", ".join(OWN)
    sections.append(
        f"{SIMULATIONS:,} simulations; C2ST of {TESTED:,} samples with as many reference samples, "
        f"the mean of {len(OBSERVATIONS)} observations (0.5 is the best). Seconds of one core; in "
        f"brackets how many times as long sbi's own ({own}) take. sbi's loop itself, without any "
        "estimator, is in both."
    )
    return "\n\n".join([*sections, machine_table(known["machine"])]) + "\n"


def table(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A row for each side."""
    head = ["density estimator", "C2ST", "epochs", "training", "an epoch", f"{DRAWS:,} samples"]
    rows = [head]
    for side in [one for one in SIDES if one in found]:
        one = found[side]
        others = [found[own] for own in OWN if own in found and side not in OWN]
        rows.append(
            [
                f"`{side}`",
                f"{mean(one['c2st']):.3f}",
                str(one["epochs"]),
                beside(one["training"], [other["training"] for other in others]),
                beside(
                    one["training"] / one["epochs"], [o["training"] / o["epochs"] for o in others]
                ),
                beside(one["sampling"], [other["sampling"] for other in others]),
            ]
        )
    return rows


def beside(value: float, others: Sequence[float]) -> str:
    """A number, and how many times as large others are."""
    times = f" ({', '.join(number(other / value) for other in others)})" if others else ""
    return number(value) + times


if __name__ == "__main__":
    main()
