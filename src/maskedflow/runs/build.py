"""From a record to a flow, and from fitted preprocessing to its record."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from maskedflow import flows
from maskedflow.data import ContextStandardizer
from maskedflow.flows import Flow, TemporalMAF
from maskedflow.transforms import (
    Dequantize,
    LazyComposedTransform,
    LazyTransform,
    Logit,
    Standardize,
)

from .config import FlowConfig

__all__ = ["build_flow", "describe"]


def describe(module: nn.Module) -> dict[str, Any]:
    """What has to be recorded of a preprocessing module, beside its buffers, to make another.

    Raises:
        ValueError: If the module is of a kind that cannot be recorded.

    Example:
        >>> describe(Standardize(torch.zeros(3), torch.ones(3)))
        {'kind': 'Standardize', 'shapes': [[3], [3]]}
    """
    match module:
        case Dequantize():
            return {"kind": "Dequantize", "step": module.step.tolist()}
        case Standardize():
            return {"kind": "Standardize", "shapes": _shapes(module.loc, module.scale)}
        case Logit():
            return {"kind": "Logit", "alpha": module.transform.alpha}
        case ContextStandardizer():
            return {"kind": "ContextStandardizer", "shapes": _shapes(module.loc, module.scale)}
    raise ValueError(f"preprocessing: no record is known for a {type(module).__name__}")


def restore(kind: str, **arguments: Any) -> nn.Module:
    """A module as :func:`describe` saw it, its buffers to be loaded.

    Raises:
        ValueError: If the kind is unknown.
    """
    match kind:
        case "Dequantize":
            return Dequantize(torch.tensor(arguments["step"]))
        case "Standardize":
            loc, scale = arguments["shapes"]
            return Standardize(torch.zeros(loc), torch.ones(scale))
        case "Logit":
            return Logit(arguments["alpha"])
        case "ContextStandardizer":
            loc, scale = arguments["shapes"]
            return ContextStandardizer(torch.zeros(loc), torch.ones(scale))
    raise ValueError(f"preprocessing: unknown kind {kind!r}")


def _shapes(*tensors: torch.Tensor) -> list[list[int]]:
    return [list(tensor.shape) for tensor in tensors]


def build_flow(
    config: FlowConfig,
    preprocessing: LazyComposedTransform | None = None,
    embedding: nn.Module | None = None,
) -> Flow | TemporalMAF:
    """Builds the flow of a run, from the data's own units to the base.

    Args:
        config: Its record.
        preprocessing: The fitted transforms in front; made from the record, unfitted, if None.
        embedding: The fitted map of the context; likewise.

    Returns:
        The flow, with the first weights that the record's seed gives.
    """
    if preprocessing is None:
        front = [restore(**record) for record in config.preprocessing]
    else:
        front = list(preprocessing.transforms)
    if embedding is None and config.embedding is not None:
        embedding = restore(**config.embedding)
    generator = torch.Generator().manual_seed(config.seed)
    constructor = getattr(flows, config.name)
    if constructor is TemporalMAF:
        steps = LazyComposedTransform(*cast(list[LazyTransform], front)) if front else None
        return TemporalMAF(
            **config.arguments, preprocessing=steps, embedding=embedding, generator=generator
        )
    core = constructor(**config.arguments, generator=generator)
    chain = cast(list[LazyTransform], [*front, *core.transform.transforms])
    return Flow(chain, core.base, embedding)
