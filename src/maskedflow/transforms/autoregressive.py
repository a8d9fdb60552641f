"""The autoregressive transform, around any conditioner."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.staircase import is_traced

from .base import VectorTransform, call_and_ladj


class AutoregressiveTransform(VectorTransform):
    r"""A map of each feature given those before it.

    .. math:: z_i = f(x_i \mid x_{<i})

    The forward direction costs one call of `meta`. The inverse costs `passes` calls, or what
    `sweep` costs where there is one.

    Args:
        meta: Makes the transform of all features, with one event dimension, given x.
        passes: The number of calls after which an inverse is exact.
        sweep: A faster inverse that maps z to x, with gradients, and the ladj of the inverse,
            without.

    References:
        | Masked Autoregressive Flow (Papamakarios et al., 2017), section 3.1
        | https://arxiv.org/abs/1705.07057

    Example:
        >>> from maskedflow.transforms import AdditiveTransform, DependentTransform
        >>> def meta(x):
        ...     before = torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], dim=-1)
        ...     return DependentTransform(AdditiveTransform(before), 1)
        >>> f = AutoregressiveTransform(meta, passes=3)
        >>> f(torch.tensor([1.0, 2.0, 3.0])), f.inv(torch.tensor([1.0, 3.0, 5.0]))
        (tensor([1., 3., 5.]), tensor([1., 2., 3.]))
    """

    def __init__(
        self,
        meta: Callable[[Tensor], TorchTransform],
        passes: int,
        sweep: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.meta = meta
        self.passes = passes
        self.sweep = sweep

    def __repr__(self) -> str:
        return f"AutoregressiveTransform(passes={self.passes})"

    def _call(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.meta(x)(x))

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return call_and_ladj(self.meta(x), x)

    def _inverse(self, y: Tensor) -> Tensor:
        sweep = None if is_traced() else self.sweep
        return self.reference_inverse(y) if sweep is None else sweep(y)[0]

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.sweep is None or is_traced():
            return super().inverse_and_ladj(y)
        x, ladj = self.sweep(y)
        return x, -self.call_and_ladj(x)[1] if x.requires_grad else ladj

    def reference_inverse(self, y: Tensor) -> Tensor:
        """The inverse by `passes` calls of the conditioner: slow, and right for any of them."""
        x = torch.zeros_like(y)
        for _ in range(self.passes):
            x = cast(Tensor, self.meta(x).inv(y))
        return x
