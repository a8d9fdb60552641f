"""What transforms have in common whose maps of one feature a conditioner parameterizes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.transforms import DependentTransform, LazyTransform
from maskedflow.transforms.univariate import UNIVARIATES

from .flow import check_sizes


class ConditionedTransform(LazyTransform):
    """A lazy transform that maps features by one `univariate`, each with parameters of its own."""

    def __init__(
        self,
        features: int,
        context: int,
        univariate: Callable[..., TorchTransform] | str,
        shapes: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        check_sizes(context, features=features)
        self.features, self.context = features, context
        if isinstance(univariate, str):
            if univariate not in UNIVARIATES:
                known = ", ".join(UNIVARIATES)
                raise ValueError(f"univariate: expected one of {known}, got {univariate!r}")
            univariate, shapes = UNIVARIATES[univariate]
        is_module = isinstance(univariate, nn.Module)
        self.univariate = copy.deepcopy(univariate) if is_module else univariate
        self.shapes = tuple(tuple(shape) for shape in shapes)
        self.sizes = [prod(shape) for shape in self.shapes]
        self.total = sum(self.sizes)

    def parameters_of(self, phi: Tensor) -> list[Tensor]:
        """Cuts (*, features, total) into the parameters of the maps, (*, features, *shape) each."""
        if not any(self.shapes):
            return list(phi.unbind(dim=-1))
        return [
            part.reshape(*part.shape[:-1], *shape) if shape else part[..., 0]
            for part, shape in zip(phi.split(self.sizes, dim=-1), self.shapes, strict=True)
        ]

    def map_of(self, phi: Tensor, dims: int = 1) -> DependentTransform:
        """The map of features with parameters (*, features, total), the rightmost an event."""
        return DependentTransform(self.univariate(*self.parameters_of(phi)), dims)

    def summary(self, name: str, values: Sequence[int]) -> str:
        """One line on the univariate, and on a property that each feature has."""
        univariate: Any = self.univariate
        if isinstance(univariate, nn.Module):
            univariate = type(univariate)
        shown = list(map(str, values))
        if len(shown) > 10:
            shown = [*shown[:5], "...", *shown[-5:]]
        title = getattr(univariate, "__name__", univariate)
        return f"(univariate): {title}, ({name}): [{', '.join(shown)}]"
