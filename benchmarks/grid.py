"""Draw a grid of images from a run by sweeps, and the same images again by D passes a layer.

    python benchmarks/grid.py maf_results/mnist [--images 64] [--rounds 5]

Both start from the same numbers of the base. Sweeps are timed several times, the passes once, for
they take long. Writes benchmarks/results/grid.{json,md} and docs/images/digits_grid.png.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from pages import RESULTS, write
from timing import machine
from torch import Tensor

import maskedflow as mf
from maskedflow.report import image_grid
from maskedflow.transforms import AutoregressiveTransform, ComposedTransform

FIGURE = RESULTS.parents[1] / "docs" / "images" / "digits_grid.png"


def main() -> None:
    """Draws, times, and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run of images, such as maf_results/mnist")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    run = mf.load_run(arguments.run)
    data = run.config.data
    assert data.image_shape is not None, "expected a run of images"
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        flow = run.flow()
        z = flow.base.sample((arguments.images,), generator=generator)
        steps = flow.transform
        assert isinstance(steps, ComposedTransform)
        steps.inv(z)  # plans the sweeps, compiles
        sweeps = [timed(steps, z) for _ in range(arguments.rounds)]
        layers = [step for step in steps.transforms if isinstance(step, AutoregressiveTransform)]
        for step in layers:
            step.sweep = None
        x, passes = timed(steps, z)
    seconds = statistics.median(elapsed for _, elapsed in sweeps)
    found = {
        "run": run.name,
        "images": arguments.images,
        "layers": len(layers),
        "passes of each layer": layers[0].passes,
        "seconds by sweeps": round(seconds, 3),
        "seconds by passes": round(passes, 1),
        "ratio": round(passes / seconds),
        "pixels that differ": f"{(x != sweeps[0][0]).double().mean().item():.2%}",
        **machine(("torch", "numba")),
    }
    text = "\n".join(f"- {name}: {value}" for name, value in found.items()) + "\n"
    write(arguments.output / "grid.json", found, text)
    print(text)
    figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
    image_grid(axes, sweeps[0][0], data.image_shape, levels=data.levels or 256)
    figure.savefig(arguments.figure, dpi=150)


def timed(steps: ComposedTransform, z: Tensor) -> tuple[Tensor, float]:
    """The images behind z, and the seconds they took."""
    start = time.perf_counter()
    x = steps.inv(z)
    return x, time.perf_counter() - start


if __name__ == "__main__":
    main()
