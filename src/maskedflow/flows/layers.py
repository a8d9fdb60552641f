"""What transforms with a conditioner, and flows of them, have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from maskedflow.transforms import BatchNorm, LazyTransform

__all__ = [
    "check_context",
    "check_keywords",
    "check_sizes",
    "costs",
    "cut",
    "interleave",
    "summary",
]


def check_sizes(features: int, context: int) -> None:
    """Refuses less than one feature, or less than no context.

    Raises:
        ValueError: If it is so.
    """
    if features < 1:
        raise ValueError(f"features: expected at least 1, got {features}")
    if context < 0:
        raise ValueError(f"context: expected at least 0, got {context}")


def check_context(c: Tensor | None, context: int) -> None:
    """Refuses a context that is missing, needless or of another size.

    Raises:
        ValueError: If it is.
    """
    if c is None:
        if context:
            raise ValueError(f"c: expected a context of shape (*, {context}), got none")
    elif not context:
        raise ValueError(f"c: expected no context, got one of shape {tuple(c.shape)}")
    elif c.shape[-1:] != (context,):
        raise ValueError(f"c: expected shape (*, {context}), got {tuple(c.shape)}")


def check_keywords(network: type[nn.Module], keywords: Iterable[str]) -> None:
    """Refuses what a network that is made with a context only would not take either.

    Raises:
        TypeError: If it does not know a keyword.
    """
    known = inspect.signature(network).parameters
    for name in keywords:
        if name not in known:
            raise TypeError(f"{network.__name__} got an unexpected keyword argument {name!r}")


def interleave(
    transforms: Iterable[LazyTransform],
    features: int,
    *,
    batch_norm: bool = False,
    between: Callable[[int], LazyTransform] | None = None,
) -> list[LazyTransform]:
    """Puts a new layer between each transform and the next, and a batch norm behind each.

    Args:
        transforms: The transforms, first to last.
        features: The number of features.
        batch_norm: Whether a :class:`~maskedflow.transforms.BatchNorm` follows every transform.
        between: Makes a layer, given the number of features.

    Raises:
        ValueError: If there are no transforms.
    """
    steps: list[LazyTransform] = []
    for transform in transforms:
        if steps and between is not None:
            steps.append(between(features))
        steps.append(transform)
        if batch_norm:
            steps.append(BatchNorm(features))
    if not steps:
        raise ValueError("transforms: expected at least 1, got 0")
    return steps


def cut(phi: Tensor, shapes: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> list[Tensor]:
    """Cuts (*, features, total) into the parameters of a univariate, (*, features, *shape) each."""
    if not any(shapes):
        return list(phi.unbind(dim=-1))
    return [
        part.reshape(*part.shape[:-1], *shape) if shape else part[..., 0]
        for part, shape in zip(phi.split(list(sizes), dim=-1), shapes, strict=True)
    ]


def costs(flow: nn.Module, kind: type[LazyTransform], density: str, samples: str) -> str:
    """One line on what each direction of a flow costs, for each of its transforms of a kind."""
    number = sum(isinstance(module, kind) for module in flow.modules())
    return f"(density): {number} × {density}, (samples): {number} × {samples}"


def summary(univariate: Callable[..., Any], name: str, values: Sequence[int]) -> str:
    """One line on a transform: its univariate, and something that is told of each feature."""
    if isinstance(univariate, nn.Module):
        univariate = type(univariate)
    told = list(map(str, values))
    if len(told) > 10:
        told = [*told[:5], "...", *told[-5:]]
    title = getattr(univariate, "__name__", univariate)
    return f"(univariate): {title}, ({name}): [{', '.join(told)}]"
