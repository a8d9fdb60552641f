"""Permutations of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskedflow.staircase import is_traced

from .base import VectorTransform, check_features
from .lazy import LazyTransform

__all__ = ["Permutation", "PermutationTransform"]


class PermutationTransform(VectorTransform):
    r"""Reorders features: :math:`y_i = x_{o_i}`. Its Jacobian's determinant is one in size.

    Args:
        order: The permutation :math:`o`, with shape (D,).

    Raises:
        ValueError: If `order` is not a permutation, or x has not D features.

    Example:
        >>> PermutationTransform(torch.tensor([2, 0, 1]))(torch.tensor([1.0, 2.0, 3.0]))
        tensor([3., 1., 2.])
    """

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        order = torch.as_tensor(order)
        if not is_traced() and (
            order.ndim != 1
            or not torch.equal(order.sort().values, torch.arange(len(order)).to(order))
        ):
            raise ValueError(f"order: expected a permutation of 0..D-1, got {order.tolist()}")
        self.order = order

    def __repr__(self) -> str:
        order = self.order.tolist()
        if len(order) > 10:
            order = [*order[:5], "...", *order[-5:]]
        return f"PermutationTransform([{', '.join(map(str, order))}])"

    def _call(self, x: Tensor) -> Tensor:
        check_features("x", x, len(self.order))
        return x[..., self.order]

    def _inverse(self, y: Tensor) -> Tensor:
        check_features("z", y, len(self.order))
        return y[..., torch.argsort(self.order)]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


class Permutation(LazyTransform):
    """A fixed permutation between the layers of a flow, part of its state.

    Args:
        features: The number of features D.
        order: Where each output comes from, with shape (D,); drawn at random if None.
        generator: Where a random order is drawn from; torch's own if None.

    Raises:
        ValueError: If `order` is not a permutation of the features.

    Example:
        >>> Permutation(3, order=[2, 1, 0])()(torch.tensor([1.0, 2.0, 3.0]))
        tensor([3., 2., 1.])
    """

    order: Tensor

    def __init__(
        self,
        features: int,
        order: Sequence[int] | Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if order is None:
            order = torch.randperm(features, generator=generator)
        order = PermutationTransform(torch.as_tensor(order)).order
        if len(order) != features:
            raise ValueError(f"order: expected {features} features, got {len(order)}")
        self.register_buffer("order", order.clone())

    def extra_repr(self) -> str:
        return repr(self()).removeprefix("PermutationTransform(")[:-1]

    def forward(self, c: Tensor | None = None) -> PermutationTransform:
        return PermutationTransform(self.order)
