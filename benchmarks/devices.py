"""Compares flows on a device with the CPU, number by number, and times them there.

    python benchmarks/devices.py --device cuda [--quick] [--output FILE]

Each flow of the catalogue computes log-densities, their gradients, draws of one seed and a step of
Adam on both, in float32 and, where the device has it, in float64. What differs by more than 1e-4
(1e-8 in float64), relative to the largest number, is told, and the exit code is 1. Then times of
both, and of zuko on the device if it is installed; and one epoch on MNIST from $MASKEDFLOW_DATA, or
on made-up rows of its size where that is not. With `--device cpu` it compares the CPU with itself.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import maskedflow as mf
from maskedflow import flows, transforms
from maskedflow.training.device import described

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
FEATURES, CONTEXT, ROWS = 6, 3, 256
K: dict[str, Any] = {"hidden_features": (64, 64)}

#: Flows of 6 features and 3 numbers of a context.
CATALOGUE: dict[str, Callable[[], flows.Flow]] = {
    "MADE": lambda: flows.MADE(FEATURES, CONTEXT, **K),
    "MAF": lambda: flows.MAF(FEATURES, CONTEXT, **K),
    "MAF, batch norm": lambda: flows.MAF(FEATURES, CONTEXT, batch_norm=True, **K),
    "MAF, ActNorm": lambda: flows.MAF(FEATURES, CONTEXT, between=transforms.ActNorm, **K),
    "MAF, LU": lambda: flows.MAF(FEATURES, CONTEXT, between=transforms.LULinear, **K),
    "MAF, mixtures": lambda: flows.MAF(
        FEATURES, CONTEXT, base=flows.base("made", FEATURES, context=CONTEXT, components=4), **K
    ),
    "IAF": lambda: flows.IAF(FEATURES, CONTEXT, **K),
    "NICE": lambda: flows.NICE(FEATURES, CONTEXT, **K),
    "RealNVP": lambda: flows.RealNVP(FEATURES, CONTEXT, **K),
    "NSF": lambda: flows.NSF(FEATURES, CONTEXT, **K),
    "NCSF": lambda: flows.NCSF(FEATURES, CONTEXT, **K),
    "SOSPF": lambda: flows.SOSPF(FEATURES, CONTEXT, **K),
    "BPF": lambda: flows.BPF(FEATURES, CONTEXT, **K),
    "NAF": lambda: flows.NAF(FEATURES, CONTEXT, **K),
    "UNAF": lambda: flows.UNAF(FEATURES, CONTEXT, **K),
    "GF": lambda: flows.GF(FEATURES, CONTEXT, **K),
    "GMM": lambda: flows.GMM(FEATURES, CONTEXT, components=4),
}

#: Flows that are timed: features, widths of hidden layers, and rows of a batch.
SIZES = {
    "MAF-6": (6, (100, 100), 1000),
    "MAF-63": (63, (512, 512), 1000),
    "MAF-784": (784, (1024,), 100),
}


def answers(flow: flows.Flow, x: Tensor, c: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """Densities, gradients and rows that latents come from, and weights after a step."""
    found = {"log_prob": flow(c).log_prob(x)}
    (-found["log_prob"].mean()).backward()
    found |= {f"slope of {n}": p.grad for n, p in flow.named_parameters() if p.grad is not None}
    transform = getattr(flow(c), "transform", None)
    if transform is not None:
        with torch.no_grad():
            found["inverse"] = transform.inv(noise)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3, fused=True)
    optimizer.step()
    # A step is of Adam's sign where a slope is but rounding: what it leads to is compared.
    with torch.no_grad():
        found["log_prob after a step"] = flow(c).log_prob(x)
        drawn = flow(c).sample((), generator=torch.Generator(x.device).manual_seed(0))
    if not drawn.isfinite().all():
        raise ValueError("a draw is not finite")
    return {name: one.detach().cpu().double() for name, one in found.items()}


def differences(name: str, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """How far each answer of a flow on a device is from the CPU's, relative to the largest."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = CATALOGUE[name]().to(dtype)
    with torch.no_grad():
        for parameter in here.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    there = copy.deepcopy(here).to(device)
    x, c, noise = (torch.randn(ROWS, n).to(dtype) for n in (FEATURES, CONTEXT, FEATURES))
    expected = answers(here.eval(), x, c, noise)
    found = answers(there.eval(), x.to(device), c.to(device), noise.to(device))
    return {
        key: ((found[key] - value).abs().max() / value.abs().max().clamp(min=1)).item()
        for key, value in expected.items()
    }


def seconds(call: Callable[[], object], device: torch.device, turns: int) -> float:
    """The median time of a call, with what it has put in the device's queue."""

    def waited() -> None:
        call()
        if device.type != "cpu":
            torch.get_device_module(device).synchronize()

    waited()
    taken = []
    for _ in range(turns):
        start = time.perf_counter()
        waited()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def cells(
    flow: nn.Module, x: Tensor, device: torch.device, turns: int, *, samples: bool
) -> dict[str, float]:
    """The milliseconds of a density, of draws, and of a step."""
    flow, x = flow.to(device), x.to(device)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        (-flow().log_prob(x).mean()).backward()
        optimizer.step()

    timed: dict[str, Callable[[], object]] = {
        "log_prob": lambda: flow().log_prob(x),
        "sample": lambda: flow().sample((len(x),)),
    }
    if not samples:
        del timed["sample"]
    with torch.no_grad():
        found = {name: seconds(call, device, turns) for name, call in timed.items()}
    found["train step"] = seconds(step, device, turns)
    return {name: round(1000 * taken, 3) for name, taken in found.items()}


def times(device: torch.device, turns: int, quick: bool) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds of each size, on the device and on the CPU, and of zuko on the device."""
    found = {}
    for name, (features, hidden, batch) in list(SIZES.items())[: 1 if quick else None]:
        x = torch.randn(batch, features, generator=torch.Generator().manual_seed(0))
        make = partial(flows.MAF, features, hidden_features=hidden)
        found[name] = {"maskedflow": cells(make(), x, device, turns, samples=True)}
        if device.type != "cpu":
            found[name]["maskedflow, CPU"] = cells(make(), x, torch.device("cpu"), 3, samples=True)
        try:
            from zuko.flows import MAF
        except ImportError:
            continue
        # Of 784 features, zuko's samples are as many passes.
        flow = MAF(features, transforms=5, hidden_features=hidden)
        found[name]["zuko"] = cells(flow, x, device, turns, samples=features < 100)
    return found


def epoch(device: torch.device, quick: bool) -> dict[str, Any]:
    """One epoch of `fit` on MNIST, or on rows of its size."""
    name = "MNIST"
    try:
        if "MASKEDFLOW_DATA" not in os.environ:
            raise FileNotFoundError
        dataset = mf.data.load("mnist")
        train, validation = dataset.train, dataset.validation
        front = dataset.preprocessing()
        layers = [] if front is None else list(front.transforms)
    except FileNotFoundError:
        name = "made-up rows of MNIST's size"
        rows = torch.randn(60_000, 784, generator=torch.Generator().manual_seed(0))
        train, validation = mf.data.Split(rows[:50_000]), mf.data.Split(rows[50_000:])
        layers = []
    if quick:
        train, validation = train[:500], validation[:100]
    maf = flows.MAF(784, hidden_features=(1024,), generator=torch.Generator().manual_seed(0))
    flow = flows.Flow([*layers, maf.transform], maf.base)
    config = mf.training.TrainConfig(epochs=1, batch_size=100, lr=1e-3)
    start = time.perf_counter()
    history = mf.training.fit(flow, train, validation, config, device=device)
    return {
        "rows": name,
        "number": len(train),
        "seconds": round(time.perf_counter() - start, 1),
        "validation_nll": history.best_validation_nll,
    }


def main() -> int:
    """Compares, times and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto")
    parser.add_argument("--quick", action="store_true", help="few rows, and the smallest flow")
    parser.add_argument("--output", type=Path, help="a .json file")
    arguments = parser.parse_args()
    device = mf.training.device_of(arguments.device)
    print(f"torch {torch.__version__} on {described(device)}", flush=True)
    missed, largest = [], {}
    for dtype, tolerance in TOLERANCE.items():
        if device.type == "mps" and dtype == torch.float64:
            continue
        for name in CATALOGUE:
            label = f"{name}, {str(dtype).removeprefix('torch.')}"
            try:
                apart = differences(name, device, dtype)
            except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
                missed.append(label)
                print(f"{label}: {type(error).__name__}: {error}", flush=True)
                continue
            worst = max(apart, key=lambda key: apart[key])
            largest[label] = apart[worst]
            print(f"{label}: {apart[worst]:.1e} ({worst})", flush=True)
            if not apart[worst] <= tolerance:
                missed.append(label)
    measured = times(device, 3 if arguments.quick else 20, arguments.quick)
    for name, sides in measured.items():
        for side, found in sides.items():
            told = ", ".join(f"{cell} {taken:g} ms" for cell, taken in found.items())
            print(f"{name}, {side}: {told}", flush=True)
    trained = epoch(device, arguments.quick)
    print(f"an epoch: {trained}")
    print(f"{len(largest)} compared; apart or failed: {', '.join(missed) or 'none'}")
    if arguments.output:
        found = {"device": described(device), "apart": largest, "missed": missed}
        found |= {"milliseconds": measured, "epoch": trained}
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
