"""Autoregressive and coupling transforms, around any conditioner."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.distributions.transforms import Transform as TorchTransform

from .base import PartTransform, VectorTransform, call_and_ladj, check_features


class AutoregressiveTransform(VectorTransform):
    r"""A map of each feature given those before it.

    .. math:: z_i = f(x_i \mid x_{<i})

    The forward direction costs one call of `meta`. The inverse costs `passes` calls, or what
    `sweep` costs where there is one.

    Args:
        meta: Makes the transform of all features, with one event dimension, given x.
        passes: The number of calls after which an inverse is exact.
        sweep: A faster inverse that maps z to x, with gradients, and gives the ladj of the inverse,
            with them or without.

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
        return self.reference_inverse(y) if self.sweep is None else self.sweep(y)[0]

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.sweep is None:
            return super().inverse_and_ladj(y)
        x, ladj = self.sweep(y)
        known = ladj.requires_grad or not x.requires_grad
        return x, ladj if known else -self.call_and_ladj(x)[1]

    def reference_inverse(self, y: Tensor) -> Tensor:
        """The inverse by `passes` calls of the conditioner: slow, and right for any of them."""
        x = torch.zeros_like(y)
        for _ in range(self.passes):
            x = cast(Tensor, self.meta(x).inv(y))
        return x


def parts_of(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The indices of the features that are kept, of the others, and of all in the order of both."""
    if mask.ndim != 1:
        raise ValueError(f"mask: expected a vector, got shape {tuple(mask.shape)}")
    kept, mapped = (part.nonzero().flatten() for part in (mask.bool(), ~mask.bool()))
    return kept, mapped, torch.cat([kept, mapped]).argsort()


class CouplingTransform(PartTransform):
    r"""A map of some features given the others, which it leaves as they are.

    .. math:: y_a = x_a, \qquad y_b = f(x_b \mid x_a)

    Each direction costs one call of `meta`.

    Args:
        meta: Makes the transform of :math:`x_b`, with one event dimension, given :math:`x_a`.
        mask: Which features are :math:`x_a`, with shape (D,), or what :func:`parts_of` makes of it.

    References:
        NICE (Dinh et al., 2014), section 3.1, https://arxiv.org/abs/1410.8516

    Example:
        >>> from maskedflow.transforms import AdditiveTransform, DependentTransform
        >>> f = CouplingTransform(
        ...     lambda a: DependentTransform(AdditiveTransform(a), 1), torch.tensor([True, False])
        ... )
        >>> f(torch.tensor([1.0, 2.0])), f.inv(torch.tensor([1.0, 3.0]))
        (tensor([1., 3.]), tensor([1., 2.]))
    """

    def __init__(
        self,
        meta: Callable[[Tensor], TorchTransform],
        mask: Tensor | tuple[Tensor, Tensor, Tensor],
    ) -> None:
        super().__init__()
        self.meta = meta
        parts = parts_of(mask) if isinstance(mask, Tensor) else mask
        self.idx_a, self.idx_b, self._merged = parts

    def __repr__(self) -> str:
        return f"CouplingTransform(kept={len(self.idx_a)}, transformed={len(self.idx_b)})"

    def _split(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        check_features(name, x, len(self._merged))
        return x[..., self.idx_b], x[..., self.idx_a]

    def _inner(self, rest: Tensor) -> TorchTransform:
        return self.meta(rest)

    def _merge(self, part: Tensor, rest: Tensor) -> Tensor:
        return self.merge(rest, part)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features that are kept, and those that are transformed."""
        return x[..., self.idx_a], x[..., self.idx_b]

    def merge(self, x_a: Tensor, x_b: Tensor) -> Tensor:
        """Puts the two parts back in their places."""
        parts = [x_a.expand(*x_b.shape[:-1], x_a.shape[-1]), x_b]
        return torch.cat(parts, dim=-1)[..., self._merged]
