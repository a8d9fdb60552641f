"""Conditional densities in units of their data: flows between a front and an embedding."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from maskedflow.data.dataset import ContextStandardizer
from maskedflow.flows import Flow
from maskedflow.flows.flow import LazyDistribution
from maskedflow.training.randomness import seeded
from maskedflow.transforms import LazyTransform, Narrow, Probit, Standardize

from .candidates import FlowBuilder

ZScore = Literal["auto", "independent", "structured", "none"]
"""How data are standardised: number by number, as a whole, or not at all."""


def support_of(bounds: tuple[Tensor, Tensor], dtype: torch.dtype) -> Probit | None:
    """The map of a support to the line; None if it is the line."""
    if not any(bool(end.isfinite().any()) for end in bounds):
        return None
    return Probit(*(end.to(dtype) for end in bounds))


@dataclass(frozen=True)
class Front:
    """What brings data to about standard units: bounds, mean and standard deviation.

    Args:
        support: Maps bounded numbers to the line; None if there are none.
        loc: The mean of what is mapped, with shape (D,).
        scale: Its standard deviation.
    """

    support: Probit | None
    loc: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, x: Tensor, bounds: tuple[Tensor, Tensor] | None = None) -> Front:
        """Takes mean and standard deviation from rows, mapped to the line by their bounds."""
        support = None if bounds is None else support_of(bounds, x.dtype)
        if support is not None:
            x = support()(support.inside(x))
        return cls(support, *moments(x, "independent"))

    def transforms(self) -> list[LazyTransform]:
        """The same as lazy transforms."""
        found: list[LazyTransform] = [] if self.support is None else [self.support]
        found.append(Standardize(self.loc, self.scale))
        return [*found, Narrow()] if self.loc.dtype == torch.float64 else found


def moments(x: Tensor, z_score: ZScore) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation by which rows are standardised, with the shape of a row."""
    if z_score == "auto":
        z_score = "independent" if x.ndim == 2 else "structured"
    if z_score == "none":
        return torch.zeros_like(x[0]), torch.ones_like(x[0])
    rows = x.flatten() if z_score == "structured" else x
    variance, mean = torch.var_mean(rows.double(), dim=0, correction=0)
    scale = variance.sqrt().to(x.dtype)
    constant = (rows == rows[0]).all(dim=0) | (scale == 0)
    scale = torch.where(constant, torch.ones_like(scale), scale)
    return mean.to(x.dtype).expand(x.shape[1:]).clone(), scale.expand(x.shape[1:]).clone()


def conditional_flow(
    build: FlowBuilder,
    front: Front,
    context: tuple[Tensor, Tensor],
    network: nn.Module | None,
    seed: int,
) -> Flow:
    """A flow between what standardises its data and what standardises and embeds its context.

    Args:
        build: Makes the flow.
        front: What standardises its data.
        context: The mean and standard deviation of the context, with its shape.
        network: What a standardised context goes through, copied; None for a vector.
        seed: Seed of the first weights.

    Raises:
        ValueError: If the network does not make vectors, or what is made is of another size.
    """
    embedding: nn.Module = ContextStandardizer(*context)
    shape = context[0].shape
    with seeded(seed):
        if network is None:
            size = shape[0]
        else:
            embedding = nn.Sequential(embedding, copy.deepcopy(network))
            size = _embedded(embedding, context[0])
        features = len(front.loc)
        made = build(features, size)
    if not isinstance(made, LazyDistribution):
        raise TypeError(
            f"flow: expected a function that makes a LazyDistribution, got a {type(made).__name__}"
        )
    return Flow(front.transforms(), made, embedding)


def _embedded(embedding: nn.Module, x: Tensor) -> int:
    """How many numbers a network makes of a context."""
    embedding.eval()
    with torch.no_grad():
        found = embedding(x.expand(2, *x.shape))
    embedding.train()
    if found.ndim != 2 or len(found) != 2:
        raise ValueError(
            f"embedding: expected vectors, of shape (2, size) for 2 simulations of shape "
            f"{tuple(x.shape)}, got {tuple(found.shape)}"
        )
    return int(found.shape[1])
