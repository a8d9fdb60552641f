"""Permutations of features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints

from .base import Transform

__all__ = ["PermutationTransform"]


class PermutationTransform(Transform):
    r"""Reorders features: :math:`y_i = x_{o_i}`. Its Jacobian's determinant is one in size.

    Args:
        order: The permutation :math:`o`, with shape (D,).

    Raises:
        ValueError: If `order` is not a permutation.

    Example:
        >>> PermutationTransform(torch.tensor([2, 0, 1]))(torch.tensor([1.0, 2.0, 3.0]))
        tensor([3., 1., 2.])
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        order = torch.as_tensor(order)
        if order.ndim != 1 or not torch.equal(
            order.sort().values, torch.arange(len(order)).to(order)
        ):
            raise ValueError(f"order: expected a permutation of 0..D-1, got {order.tolist()}")
        self.order = order

    def __repr__(self) -> str:
        return f"PermutationTransform({self.order.tolist()})"

    def _call(self, x: Tensor) -> Tensor:
        return x[..., self.order]

    def _inverse(self, y: Tensor) -> Tensor:
        return y[..., torch.argsort(self.order)]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])
