"""A map of the first features alone."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform as TorchTransform

from .base import Transform, call_and_ladj
from .lazy import LazyComposedTransform, LazyTransform

__all__ = ["Head", "HeadTransform"]


class HeadTransform(Transform):
    r"""Maps the first features, and leaves the others as they are.

    .. math:: y = [f(x_{1:n}), x_{n+1:D}]

    Args:
        base: The transform f of the first features, with one event dimension.
        features: The number n of features that it maps.

    Raises:
        ValueError: If x has less than n features.

    Example:
        >>> from maskedflow.transforms import PermutationTransform
        >>> f = HeadTransform(PermutationTransform(torch.tensor([1, 0])), 2)
        >>> f(torch.tensor([1.0, 2.0, 3.0]))
        tensor([2., 1., 3.])
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, base: TorchTransform, features: int) -> None:
        super().__init__()
        self.base = base
        self.features = features

    def __repr__(self) -> str:
        return f"HeadTransform({self.base}, {self.features})"

    def _split(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[-1] < self.features:
            raise ValueError(
                f"{name}: expected at least {self.features} features, got shape {tuple(x.shape)}"
            )
        return x[..., : self.features], x[..., self.features :]

    def _call(self, x: Tensor) -> Tensor:
        head, tail = self._split("x", x)
        return _join(cast(Tensor, self.base(head)), tail)

    def _inverse(self, y: Tensor) -> Tensor:
        head, tail = self._split("z", y)
        return _join(cast(Tensor, self.base.inv(head)), tail)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        head, tail = self._split("x", x)
        head, ladj = call_and_ladj(self.base, head)
        return _join(head, tail), ladj

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        head, tail = self._split("z", y)
        head, ladj = call_and_ladj(self.base.inv, head)
        return _join(head, tail), ladj


def _join(head: Tensor, tail: Tensor) -> Tensor:
    # A batch of contexts may have widened the head.
    return torch.cat([head, tail.expand(*head.shape[:-1], tail.shape[-1])], dim=-1)


class Head(LazyTransform):
    """Lazy transforms of the first features, one after the other.

    In a flow of several scales, what goes on after a split.

    Args:
        features: The number of features that they map.
        transforms: The lazy transforms.

    References:
        | RealNVP (Dinh et al., 2016), section 3.6
        | https://arxiv.org/abs/1605.08803

    Example:
        >>> from maskedflow.transforms import LULinear
        >>> Head(2, LULinear(2))()(torch.ones(5, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(self, features: int, *transforms: LazyTransform) -> None:
        super().__init__()
        self.features = features
        self.transform = LazyComposedTransform(*transforms)

    def extra_repr(self) -> str:
        return f"features={self.features}"

    def forward(self, c: Tensor | None = None) -> HeadTransform:
        return HeadTransform(self.transform(c), self.features)
