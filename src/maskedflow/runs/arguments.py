"""What a record may say of a flow, and how large the flow is at least."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Ge, Interval, Len
from pydantic import AfterValidator, Field, with_config
from typing_extensions import TypedDict

from maskedflow.files import CLOSED, Count, Finite, Size, check

__all__ = ["Arguments", "Module", "numbers_of"]

Activation = Literal["relu", "tanh", "elu", "silu"]
Layer = Literal["actnorm", "lu"]
First = Literal["actnorm", "lu", "rgb", "scores", "whiten"]
Widths = Annotated[list[Size], Len(max_length=1000)]
Shape = Annotated[list[Size], Len(max_length=4)]
Widening = Annotated[Finite, Ge(0)]


@with_config(CLOSED)
class _Network(TypedDict, total=False):
    hidden_features: Widths


@with_config(CLOSED)
class _Shared(TypedDict, total=False):
    """What flows and their bases take."""

    features: Size
    context: Count
    components: Size
    covariance_type: Literal["full", "diagonal", "spherical"]
    degrees: Literal["sequential", "random"]
    epsilon: Finite
    hidden_features: Widths
    normalize: bool
    residual: bool
    tied: bool
    widen: bool


@with_config(CLOSED)
class _Base(_Shared, total=False):
    name: Literal["normal", "mixture", "made", "marginals", "student-t", "uniform"]
    df: Finite
    learnable: bool
    lower: Finite
    upper: Finite


@with_config(CLOSED)
class _Arguments(_Shared, total=False):
    activation: Activation | Annotated[list[Activation], Len(max_length=1000)]
    base: _Base
    batch_norm: bool
    between: Layer
    bins: Size
    degree: Size
    first: First | Annotated[list[First], Len(1, 10)]
    hidden_size: Size
    image_shape: Annotated[list[Size], Len(3, 3)]
    network: _Network
    num_layers: Size
    order: list[Count]
    passes: Size
    periodic: bool
    polynomials: Size
    randmask: bool
    randperm: bool
    rnn: Literal["gru", "lstm"]
    scales: Size
    signal: Size
    slope: Finite
    steps: Size
    transforms: Count
    univariate: str


@with_config(CLOSED)
class _Dequantize(TypedDict):
    kind: Literal["Dequantize"]
    step: NotRequired[Widening | list[Widening]]
    low: NotRequired[float | list[float]]
    high: NotRequired[float | list[float]]


@with_config(CLOSED)
class _Bounds(TypedDict):
    kind: Literal["Bounds"]
    low: list[float]
    high: list[float]
    dtype: NotRequired[Literal["float64"]]


@with_config(CLOSED)
class _Standardize(TypedDict):
    kind: Literal["Standardize", "ContextStandardizer"]
    shapes: NotRequired[Annotated[list[Shape], Len(2, 2)]]
    dtype: NotRequired[Literal["float64"]]


@with_config(CLOSED)
class _Logit(TypedDict):
    kind: Literal["Logit"]
    alpha: NotRequired[Annotated[float, Interval(ge=0, lt=0.5)]]


@with_config(CLOSED)
class _Narrow(TypedDict):
    kind: Literal["Narrow"]


_Module = Annotated[
    _Bounds | _Dequantize | _Standardize | _Logit | _Narrow, Field(discriminator="kind")
]

Arguments = Annotated[dict[str, Any], AfterValidator(partial(check, _Arguments))]
"""Keyword arguments of a flow, as plain values."""

Module = Annotated[dict[str, Any], AfterValidator(partial(check, _Module))]
"""A preprocessing module, as :func:`maskedflow.runs.describe` sees it."""


def numbers_of(name: str, arguments: Mapping[str, Any]) -> int:
    """Counts the numbers that a flow of these arguments has at least, without building it.

    What is left out of the arguments counts as little as it can.

    Args:
        name: Its constructor in `maskedflow.flows`.
        arguments: Its arguments.

    Example:
        >>> numbers_of("MAF", {"features": 4, "transforms": 5, "hidden_features": [10, 20]})
        1600
        >>> numbers_of("MAF", {"features": 4, "transforms": 5, "hidden_features": [10, 10**9]})
        70000000200
    """
    features, given = arguments["features"], arguments.get("context", 0)
    size, widths = arguments.get("hidden_size", 0), arguments.get("hidden_features", [])
    components = arguments.get("components", 1)
    # Of each feature: bins of a spline, coefficients, the signal of a network.
    each = max(components, *(arguments.get(key, 1) for key in ("bins", "degree", "signal")))
    each = max(each, arguments.get("polynomials", 1) * arguments.get("degree", 1))
    reads, maps = features + given + size, features * each
    match name:
        case "RealNVP" | "NICE":
            reads, maps = features // 2 + given, features // 2
        case "Glow" | "PixelCNN":
            reads, maps = 0, 1
        case "GF" | "GMM":
            reads = given
    turns = features**2 - 1 if name == "GF" or arguments.get("between") == "lu" else 0
    network = _dense([reads, *widths, maps]) if widths else maps
    network += _dense(arguments.get("network", {}).get("hidden_features", []))
    total = arguments.get("transforms", 1) * (max(network, 1) + turns) - turns
    if name == "GMM" and arguments.get("covariance_type", "full") == "full":
        total += (1 if arguments.get("tied") else components) * features * (features - 1) // 2
    if "base" in arguments:
        base = {"features": features, "covariance_type": "diagonal", **arguments["base"]}
        kind = {"made": "MADE", "mixture": "GMM"}.get(base["name"], base["name"])
        total += numbers_of(kind, base)
    if "whiten" in arguments.get("first", ()):
        total += features * (features + given)
    total += size * (features + arguments.get("num_layers", 1) * size)
    return int(max(total, features))


def _dense(widths: list[int]) -> int:
    return sum(before * after for before, after in pairwise(widths))
