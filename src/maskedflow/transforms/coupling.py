"""The coupling transform, around any conditioner."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions.transforms import Transform as TorchTransform

from .base import PartTransform, check_features


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
