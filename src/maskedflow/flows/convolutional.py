"""Coupling of the channels of an image."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.nn import ConvNet
from maskedflow.transforms import (
    CouplingTransform,
    DependentTransform,
    LazyTransform,
    MonotonicAffineTransform,
)
from maskedflow.transforms.coupling import parts_of

from .flow import check_context, check_sizes


class ConvCouplingTransform(LazyTransform):
    r"""A lazy affine coupling of images: the first channels are kept, the others mapped given them.

    .. math:: z_a = x_a, \qquad z_b = x_b \exp(B \tanh(s / B)) + t, \quad
        (t, s) = \text{ConvNet}(x_a, c)

    No slope leaves :math:`[e^{-B}, e^B]`, and a new coupling is the identity. Images are flattened,
    channels first. Each direction costs one pass of the network.

    Args:
        shape: The shape (C, H, W) of an image. The first half of the channels, rounded down, are
            kept; a single channel is mapped given the context alone.
        bound: The largest log-slope B.
        kwargs: What :class:`maskedflow.nn.ConvNet` takes: `hidden_features`, `activation`,
            `generator`.

    Raises:
        ValueError: If the shape has a size below 1, or the bound is not positive.

    References:
        Glow (Kingma and Dhariwal, 2018), section 3.3, https://arxiv.org/abs/1807.03039

    Example:
        >>> t = ConvCouplingTransform((2, 4, 4))
        >>> x = torch.randn(5, 32)
        >>> torch.equal(t()(x), x)
        True
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        context: int = 0,
        *,
        bound: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_sizes(min(shape), context)
        if not bound > 0:
            raise ValueError(f"bound: expected a positive number, got {bound}")
        self.shape, self.context, self.bound = shape, context, bound
        channels, *sides = shape
        kept = channels // 2
        self.kept = (kept, *sides)
        self._parts = parts_of(torch.arange(prod(shape)) < prod(self.kept))
        self.hyper = ConvNet(kept, 2 * (channels - kept), context, **kwargs)

    def extra_repr(self) -> str:
        return f"shape={self.shape}, bound={self.bound}"

    def meta(self, c: Tensor | None, x_a: Tensor) -> TorchTransform:
        """Makes the transform of the channels that are mapped, given those that are kept."""
        phi = self.hyper(x_a.reshape(*x_a.shape[:-1], *self.kept), c).flatten(-3)
        shift, scale = phi.chunk(2, dim=-1)
        log_scale = self.bound * torch.tanh(scale / self.bound)
        return DependentTransform(MonotonicAffineTransform(shift, log_scale), 1)

    def forward(self, c: Tensor | None = None) -> CouplingTransform:
        check_context(c, self.context)
        return CouplingTransform(partial(self.meta, c), self._parts)
