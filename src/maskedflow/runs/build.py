"""From a record to a flow, and from fitted preprocessing to its record."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, cast

import torch
from torch import nn

from maskedflow import flows
from maskedflow.data import ContextStandardizer, Split
from maskedflow.flows import GMM, Flow, LazyDistribution, TemporalMAF
from maskedflow.training import start_at
from maskedflow.training.batches import input_like
from maskedflow.transforms import (
    ActNorm,
    Bounds,
    Dequantize,
    IdentityTransform,
    LazyComposedTransform,
    LazyTransform,
    Logit,
    LULinear,
    Narrow,
    NormalScores,
    Permutation,
    Standardize,
    UnconditionalTransform,
    Whiten,
)

from .arguments import numbers_of
from .config import DataConfig, FlowConfig

__all__ = ["build_flow", "describe", "start_at_data"]


def _rgb(features: int) -> Permutation:
    """The order of an image's features in which the three colours of a pixel are side by side."""
    if features % 3:
        raise ValueError(f"first: 'rgb' expects three colours a pixel, got {features} features")
    return Permutation(features, torch.arange(features).view(3, -1).T.flatten())


_NAMED: dict[str, dict[str, Any]] = {
    "activation": {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU, "silu": nn.SiLU},
    "between": {"actnorm": ActNorm, "lu": LULinear},
    "first": {
        "actnorm": ActNorm,
        "lu": LULinear,
        "rgb": _rgb,
        "scores": NormalScores.waiting,
        "whiten": Whiten.waiting,
    },
}

_FLOWS = (LazyDistribution, TemporalMAF)

#: Rows to find clusters in.
_ROWS = 20_000


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
            if module.low is None or module.high is None:
                return {"kind": "Dequantize", "step": module.step.tolist()}
            ends = {"low": module.low.tolist(), "high": module.high.tolist()}
            return {"kind": "Dequantize", "step": module.step.tolist(), **ends}
        case Bounds():
            wide = {"dtype": "float64"} if module.low.dtype == torch.float64 else {}
            ends = {"low": module.low.tolist(), "high": module.high.tolist()}
            return {"kind": "Bounds", **ends, **wide}
        case Standardize() | ContextStandardizer():
            shapes = _shapes(module.loc, module.scale)
            wide = {"dtype": "float64"} if module.loc.dtype == torch.float64 else {}
            return {"kind": type(module).__name__, "shapes": shapes, **wide}
        case Narrow():
            return {"kind": "Narrow"}
        case Logit():
            return {"kind": "Logit", "alpha": module.transform.alpha}
    raise ValueError(f"preprocessing: no record is known for a {type(module).__name__}")


def restore(kind: str, **arguments: Any) -> nn.Module:
    """A module as :func:`describe` saw it, its buffers to be loaded.

    Raises:
        ValueError: If the kind is unknown.
    """
    dtype = torch.float64 if arguments.get("dtype") == "float64" else None
    match kind:
        case "Dequantize":
            step, *ends = (
                torch.tensor(arguments[name], dtype=torch.float64)
                for name in ("step", "low", "high")
                if name in arguments
            )
            return Dequantize(step, *ends)
        case "Bounds":
            return Bounds(*(torch.tensor(arguments[end], dtype=dtype) for end in ("low", "high")))
        case "Standardize" | "ContextStandardizer":
            loc, scale = arguments["shapes"]
            made = Standardize if kind == "Standardize" else ContextStandardizer
            return made(torch.zeros(loc, dtype=dtype), torch.ones(scale, dtype=dtype))
        case "Narrow":
            return Narrow()
        case "Logit":
            return Logit(arguments["alpha"])
    raise ValueError(f"preprocessing: unknown kind {kind!r}")


def _shapes(*tensors: torch.Tensor) -> list[list[int]]:
    return [list(tensor.shape) for tensor in tensors]


def build_flow(
    config: FlowConfig,
    preprocessing: LazyComposedTransform | None = None,
    embedding: nn.Module | None = None,
) -> Flow | TemporalMAF:
    """Builds the flow of a run, from the data's own units to the base.

    Its arguments are plain values. Names stand for an `activation`, or for one after the other
    ("relu", "tanh", "elu", "silu"), for a layer `between` transforms ("actnorm", "lu"), and for
    layers `first`, before all of them: these, "rgb", which has the three colours of a pixel side by
    side, and "scores" and "whiten", which wait for the training rows. A `base` is a table with what
    :func:`maskedflow.flows.base` takes, its `name` above all.

    Args:
        config: Its record.
        preprocessing: The fitted transforms in front; made from the record, unfitted, if None.
        embedding: The fitted map of the context; likewise.

    Returns:
        The flow, with the first weights that the record's seed gives.

    Raises:
        ValueError: If a name is unknown.
    """
    if preprocessing is None:
        front = [restore(**record) for record in config.preprocessing]
    else:
        front = list(preprocessing.transforms)
    if embedding is None and config.embedding is not None:
        embedding = restore(**config.embedding)
    generator = torch.Generator().manual_seed(config.seed)
    constructor = getattr(flows, config.name, None)
    if not (isinstance(constructor, type) and issubclass(constructor, _FLOWS)):
        raise ValueError(f"flow: expected a flow of maskedflow.flows, got {config.name!r}")
    arguments = _arguments(config.arguments, generator)
    if constructor is TemporalMAF:
        steps = LazyComposedTransform(*cast(list[LazyTransform], front)) if front else None
        return TemporalMAF(
            **arguments, preprocessing=steps, embedding=embedding, generator=generator
        )
    if "first" in arguments:
        first = arguments.pop("first")
        for layer in first if isinstance(first, tuple) else (first,):
            given = {"context": arguments.get("context", 0)} if layer == Whiten.waiting else {}
            front.append(layer(arguments["features"], **given))
    core = constructor(**arguments, generator=generator)
    base = core
    # Mixtures stay whole: they know a cheaper density than that of their transform. A batch norm
    # has to be one of the chain, to be calibrated.
    mixtures = arguments.get("components") and not arguments.get("batch_norm")
    if isinstance(core, Flow) and not mixtures:
        front += list(cast(LazyComposedTransform, core.transform).transforms)
        base = core.base
    front = front or [UnconditionalTransform(IdentityTransform)]
    return Flow(cast(list[LazyTransform], front), base, embedding)


def check_numbers(
    config: FlowConfig, data: DataConfig, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Refuses a record that announces more than a checkpoint holds, before memory is asked for.

    Raises:
        ValueError: If it does, or columns and features are not equally many.
    """
    arguments = config.arguments
    for key, names in (("features", data.columns), ("context", data.context_columns)):
        found = arguments.get(key, 0)
        if found != len(names):
            raise ValueError(f"flow.arguments.{key}: expected {len(names)} as columns, got {found}")
    modules = [*config.preprocessing, config.embedding or {}]
    announced = numbers_of(config.name, arguments)
    announced += sum(prod(shape) for module in modules for shape in module.get("shapes", ()))
    stored = sum(tensor.numel() for tensor in tensors.values())
    if announced > stored:
        raise ValueError(f"flow: of {announced:,} numbers at least, the checkpoint has {stored:,}")


def _arguments(plain: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    """The arguments of a constructor, with all that is told by name in its place."""
    arguments = dict(plain)
    for key in _NAMED.keys() & plain.keys():
        value = plain[key]
        names = value if isinstance(value, list) else [value]
        for name in names:
            if name not in _NAMED[key]:
                raise ValueError(f"{key}: expected one of {', '.join(_NAMED[key])}, got {name!r}")
        found = tuple(_NAMED[key][name] for name in names)
        arguments[key] = found if isinstance(value, list) else found[0]
    if "base" in plain:
        base: dict[str, Any] = {"features": plain["features"], **plain["base"]}
        if "components" in base:  # which start at random
            base["generator"] = generator
        arguments["base"] = flows.base(**base)
    return arguments


@torch.no_grad()
def start_at_data(flow: Flow, train: Split, seed: int) -> None:
    """Starts a flow at its training rows, mixtures of Gaussians in its base at clusters of these.

    Args:
        flow: The flow, as it is built.
        train: The rows; at most 20,000 of them are used for clusters.
        seed: Seed of which, and of the clusters' centres.
    """
    start_at(flow, train)
    mixtures = [module for module in flow.base.modules() if isinstance(module, GMM)]
    if not mixtures:
        return
    flow.eval()  # batch norms and the like are not to start here
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(train), generator=generator)[:_ROWS]
    c = None if train.context is None else train.context[rows].to(input_like(flow))
    if c is not None and flow.embedding is not None:
        c = flow.embedding(c)
    weight = None if train.weight is None else train.weight[rows]
    z = flow.transform(c)(train.x[rows].to(input_like(flow)))
    for mixture in mixtures:
        if len(z) >= mixture.components:
            mixture.initialize(z, weight=weight, generator=generator)
