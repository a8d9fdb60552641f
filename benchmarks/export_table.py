"""Exports every flow that `train --flow` knows, runs the files, and prints the table of its page.

    python benchmarks/export_table.py [NAME ...]

Each program is traced with three rows and run with seven, beside the flow itself, whose weights are
far from those that it starts with. A cell says that they agree to 1e-5, by how much they do not, or
why there is no program.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import maskedflow as mf
from maskedflow.recipes import RECIPES, SHAPES
from maskedflow.runs import FlowConfig, build_flow

FEATURES, CONTEXT, ROWS = 4, 2, 7
SETTINGS = {**SHAPES, "hidden_dim": 16, "num_layers": 2, "hidden_layers": 2}
HEAD = "| flow | context | log_prob, .pt2 | log_prob, .onnx | sample, .pt2 | sample, .onnx |"


def flow_of(name: str) -> tuple[Any, int]:
    """A small flow of a name with weights of some size, and how many context features it has."""
    recipe = RECIPES[name]
    context = 0 if recipe.images else CONTEXT
    shape = (1, 2, 2) if recipe.images else None
    arguments = recipe.build(FEATURES, context, SETTINGS, shape)
    flow = build_flow(FlowConfig(recipe.constructor, arguments)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in flow.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return flow, context


def run(path: Path, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """What a program makes of its inputs."""
    if path.suffix == ".pt2":
        found = torch.export.load(path).module()(*inputs)
        return list(found) if isinstance(found, tuple) else [found]
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return [torch.from_numpy(one) for one in session.run(None, given)]


@torch.no_grad()
def difference(flow: Any, context: int, what: str, path: Path) -> float:
    """The largest difference between a program and its flow, relative where numbers exceed 1."""
    mf.interop.export(flow, path, what)
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(ROWS, FEATURES, generator=generator)]
    if context:
        inputs.append(torch.randn(ROWS, context, generator=generator))
    density = flow(*inputs[1:])
    if what == "log_prob":
        expected = [density.log_prob(inputs[0])]
    else:
        inputs[0] = mf.interop.latents(flow, ROWS, *inputs[1:], generator=generator)
        found = run(path, inputs)
        return max(
            apart(found[1], density.log_prob(found[0])),
            apart(found[0], _data(density, inputs[0])),
        )
    return max(apart(a, b) for a, b in zip(run(path, inputs), expected, strict=True))


def _data(density: Any, z: torch.Tensor) -> torch.Tensor:
    """The rows of latents, by the flow itself."""
    if not isinstance(density, mf.distributions.NormalizingFlow):
        return z
    x: torch.Tensor = density.transform.inv(_data(density.base, z))
    return x


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative where numbers exceed 1."""
    return float(((found - expected).abs() / expected.abs().clamp(min=1)).max())


def row(name: str) -> list[str]:
    """The cells of a flow."""
    flow, context = flow_of(name)
    cells = [f"`{name}`", "yes" if context else "no"]
    with tempfile.TemporaryDirectory() as folder:
        for what in ("log_prob", "sample"):
            for suffix in (".pt2", ".onnx"):
                try:
                    far = difference(flow, context, what, Path(folder) / f"flow{suffix}")
                except ValueError as error:
                    cells.append(str(error).split(": ")[-1])
                else:
                    cells.append("yes" if far <= 1e-5 else f"off by {far:.0e}")
    return cells


def main() -> None:
    """Print the table, or rows of it."""
    print(HEAD)
    print("|---" * HEAD.count(" | ") + "|---|")
    for name in sys.argv[1:] or RECIPES:
        print("|", " | ".join(row(name)), "|", flush=True)


if __name__ == "__main__":
    main()
