"""Densities that were trained before, from their files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Len
from pydantic import with_config
from torch import Tensor, nn
from typing_extensions import TypedDict

from maskedflow.files import CLOSED, Count, blame
from maskedflow.training import TrainConfig, load, save
from maskedflow.training.checkpoint import METADATA, metadata_of, read

from .candidates import FlowBuilder, candidates
from .density import Front, conditional_flow, support_of
from .ensemble import Ensemble


@with_config(CLOSED)
class _Recipe(TypedDict):
    """What a file says of its flows."""

    choices: Annotated[list[Count], Len(min_length=1)]


def save_density(path: str | Path, density: Ensemble) -> None:
    """Writes the weights of flows, and which of the candidates each is."""
    save(path, density, {"choices": density.choices})


def load_density(
    path: str | Path,
    flow: str | FlowBuilder,
    config: TrainConfig | None,
    *,
    bounds: tuple[Tensor, Tensor] | None = None,
    network: nn.Module | None = None,
) -> tuple[Ensemble, int, Tensor]:
    """Reads what :func:`save_density` wrote.

    Args:
        path: The file.
        flow: The flow, as of :class:`.NPE`.
        config: The settings of its training.
        bounds: The bounds of its features, if they have some.
        network: What its contexts go through; None for a vector.

    Returns:
        The flows, the number of their features, and the mean of their contexts, which tells what
        shape and precision these have.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or of other bounds, another flow or network.
    """
    tensors, header = read(path)
    recipe = metadata_of(path, header, METADATA, _Recipe)
    name = "embedding.loc" if network is None else "embedding.0.loc"
    with blame(Path(path), "not a density of this flow and this embedding"):
        choices = recipe["choices"]
        context = tensors[f"members.{len(choices) - 1}.{name}"]
        support = None if bounds is None else support_of(bounds, context.dtype)
        first = "members.0.transform.transforms"
        zeros = torch.zeros_like(tensors[f"{first}.{0 if support is None else 1}.loc"])
        front = Front(support, zeros, torch.ones_like(zeros))
        scaled = torch.zeros_like(context), torch.ones_like(context)
        build = partial(conditional_flow, front=front, context=scaled, network=network)
        known = candidates(flow, len(zeros), 1, config)
        density = Ensemble([build(known[one][0], seed=0) for one in choices], choices)
        load(path, density)
        if bounds is not None and support is not None:
            for end, bound in zip(("low", "high"), bounds, strict=True):
                if not torch.equal(tensors[f"{first}.0.bounds.{end}"], bound.to(context)):
                    raise ValueError("the prior's bounds are others")
    return density, len(zeros), context
