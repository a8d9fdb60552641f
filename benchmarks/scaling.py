"""Times a draw against the number of features, for one sweep and for D passes.

    python benchmarks/scaling.py [--quick]

One affine autoregressive transform with a hidden layer of 1,024 units, 100 rows, float32. zuko's
curve ends where a draw would take half a minute. Writes `benchmarks/results/scaling.{json,md}` and
`docs/images/scaling.png`; a quick run prints, and writes with `--output` and `--figure` only.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch
from pages import RESULTS, machine_table, markdown, number, write
from sides import SIDES, Configuration
from timing import Job, alternate, machine

FIGURE = RESULTS.parents[1] / "docs" / "images" / "scaling.png"
FEATURES = (8, 16, 32, 64, 128, 256, 512, 784, 1024, 2048, 3072)
PEER = "zuko"
#: From so many features on the exponents are fitted: below, a call's overhead is what it costs.
LARGE = 128
#: The passes of the forecast that decides whether the peer is timed.
FORECAST = 4

Curve = dict[int, float]


def main() -> None:
    """Measures, prints, writes and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few features, one call each")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for each side and D")
    parser.add_argument("--limit", type=float, default=30.0, help="the peer's longest draw")
    parser.add_argument("--output", type=Path, help="folder of scaling.json and scaling.md")
    parser.add_argument("--figure", type=Path, help="file of the figure")
    arguments = parser.parse_args()
    rounds, budget, limit = arguments.rounds, arguments.budget, arguments.limit
    if arguments.quick:
        rounds, budget, limit = 1, 0.0, 1.0

    curves = measure(rounds, budget, limit)
    slopes = {side: exponent(curve) for side, curve in curves.items()}
    setting = machine(("torch", "numba", PEER))
    text = report(curves, slopes, setting, limit)
    print(text)
    output = arguments.output or (None if arguments.quick else RESULTS)
    figure = arguments.figure or (None if arguments.quick else FIGURE)
    if output is not None:
        result = {"machine": setting, "seconds": curves, "exponents": slopes, "fitted_from": LARGE}
        write(output / "scaling.json", result, text)
    if figure is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
        draw(figure, curves, slopes)


def measure(rounds: int, budget: float, limit: float) -> dict[str, Curve]:
    """The median seconds of a draw for each side and number of features."""
    curves: dict[str, Curve] = {"maskedflow": {}, PEER: {}}
    for features in FEATURES:
        print(f"{features} features", file=sys.stderr, flush=True)
        torch.manual_seed(0)
        shape = Configuration(str(features), features, (1024,), 100, transforms=1)
        sides = ["maskedflow"]
        forecast = None
        if len(curves[PEER]) == FEATURES.index(features):  # its curve has not ended yet
            forecast = forecast_of(features)
            sides += [PEER] if forecast <= limit else []
        jobs = [
            # A long draw needs no warm-up: its own first passes are that.
            Job((side,), SIDES[side](shape)["sample"], warm_up=side != PEER or forecast < 1)
            for side in sides
        ]
        alternate(jobs, rounds, budget)
        for job in jobs:
            curves[job.key[0]][features] = job.median
    return curves


def forecast_of(features: int) -> float:
    """The seconds that the peer will take for a draw, from the fastest of a few short ones."""
    shape = Configuration("", features, (1024,), 100, transforms=1, sample_passes=FORECAST)
    job = Job((PEER,), SIDES[PEER](shape)["sample"], shape.scale(PEER, "sample"))
    alternate([job], rounds=3, budget=1.0)
    return job.scale * min(job.seconds)


def exponent(curve: Curve) -> float | None:
    """The slope of a line through the logarithms; None if there are fewer than two points."""
    points = [(d, t) for d, t in curve.items() if d >= LARGE]
    if len(points) < 2:
        return None
    return float(np.polyfit(*np.log(points).T, 1)[0])


def report(
    curves: dict[str, Curve],
    slopes: dict[str, float | None],
    setting: dict[str, str | int],
    limit: float,
) -> str:
    """A table of the curves, and what they were measured on."""
    rows = [["features", "maskedflow", PEER, "ratio"]]
    for features, own in curves["maskedflow"].items():
        peer = curves[PEER].get(features)
        row = [f"{features:,}", number(own)]
        rows.append(row + (["", ""] if peer is None else [number(peer), number(peer / own)]))
    fitted = "; ".join(f"{side} D^{slope:.2f}" for side, slope in slopes.items() if slope)
    return "\n\n".join(
        (
            "# Time of a draw against the number of features",
            "Seconds for 100 samples, medians: one affine autoregressive transform, one hidden "
            f"layer of 1,024 units, float32.\n{PEER} was not run where a draw would take more than "
            f"{limit:g} s.\nFitted to D >= {LARGE}: {fitted or 'nothing'}.",
            markdown(rows),
            machine_table(setting),
            "",
        )
    )


def draw(path: Path, curves: dict[str, Curve], slopes: dict[str, float | None]) -> None:
    """The curves and their fits on logarithmic axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    names = {"maskedflow": "maskedflow, one sweep", PEER: f"{PEER}, D passes"}
    with plt.style.context("default"):
        figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
        for (side, curve), color, marker in zip(
            curves.items(), ("#0b62a4", "#c2571a"), "os", strict=True
        ):
            slope = slopes[side]
            name = names[side] + ("" if slope is None else rf":  $\propto D^{{{slope:.2f}}}$")
            axes.plot(*zip(*curve.items(), strict=True), marker, color=color, label=name)
            if slope is not None:
                large = np.array([d for d in curve if d >= LARGE])
                level = np.mean([np.log(curve[d]) - slope * np.log(d) for d in large.tolist()])
                axes.plot(large, np.exp(level) * large**slope, color=color, alpha=0.6)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="features D",
            ylabel="time of 100 samples (s)",
            title=f"Sampling one masked autoregressive transform, {os.cpu_count()} CPU cores",
        )
        labelled = [d for d in FEATURES if d != 784]  # too near to 1,024
        axes.xaxis.set_major_locator(FixedLocator(labelled))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")
        figure.savefig(path, dpi=150, facecolor="white")
        plt.close(figure)


if __name__ == "__main__":
    main()
