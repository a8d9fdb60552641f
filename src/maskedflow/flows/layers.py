"""What transforms with a conditioner, and flows of them, have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from maskedflow.transforms import BatchNorm, LazyTransform

__all__ = ["cut", "interleave", "summary"]


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


def summary(univariate: Callable[..., Any], name: str, values: Sequence[int]) -> str:
    """One line on a transform: its univariate, and something that is told of each feature."""
    if isinstance(univariate, nn.Module):
        univariate = type(univariate)
    told = list(map(str, values))
    if len(told) > 10:
        told = [*told[:5], "...", *told[-5:]]
    title = getattr(univariate, "__name__", univariate)
    return f"(univariate): {title}, ({name}): [{', '.join(told)}]"
