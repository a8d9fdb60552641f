"""The distribution of a flow that is one program."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Size, Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform

from maskedflow.chain import Chain

from .base import Shape
from .density import Density
from .flow import NormalizingFlow


class ChainedFlow(NormalizingFlow):
    """A flow that a chain computes, in one call; its parts are made when they are asked for.

    Args:
        chain: The transforms and the base N(0, I).
        c: The context, with shape (*batch, context); none if None.
        make: Makes the same distribution of its parts, given a context.
    """

    def __init__(
        self, chain: Chain, c: Tensor | None, make: Callable[[Tensor | None], NormalizingFlow]
    ) -> None:
        self._chain, self._c, self._make = chain, c, make
        batch = () if c is None else c.shape[:-1]
        Density.__init__(self, batch, (chain.features,))

    @cached_property
    def _plain(self) -> NormalizingFlow:
        return self._make(self._c)

    @property
    def transform(self) -> Transform:  # type: ignore[override]
        return self._plain.transform

    @property
    def base(self) -> Distribution:  # type: ignore[override]
        return self._plain.base

    @property
    def _reinterpreted(self) -> int:  # type: ignore[override]
        return self._plain._reinterpreted

    def expand(self, batch_shape: Shape, _instance: object = None) -> NormalizingFlow:
        if Size(batch_shape) == self.batch_shape:
            return self
        new = self._plain.expand(batch_shape)
        new.origin = self.origin
        return new

    def density(self, value: Tensor) -> Tensor:
        vectors = self._chain.vectors(value, self._c)
        if vectors is None:
            return self._plain.density(value)
        return self._chain(value, self._c, vectors, self._again)[1]

    def _again(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        return x, self._make(c).density(x)

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        drawn = self._draw(sample_shape, generator)
        return self._plain.rsample(sample_shape, generator) if drawn is None else drawn[1]

    def rsample_and_log_prob(
        self, sample_shape: Shape = (), generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        drawn = self._draw(sample_shape, generator)
        if drawn is None:
            return self._plain.rsample_and_log_prob(sample_shape, generator)
        z, x, ladj = drawn
        constant = 0.5 * self._chain.features * math.log(2 * math.pi)
        return x, -0.5 * z.square().sum(dim=-1) - constant - ladj

    def _draw(
        self, sample_shape: Shape, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Latents, their data, and the ladj; None where the kernel cannot compute them."""
        like = self._chain.like
        shape = self._extended_shape(Size(sample_shape))
        # Whether the kernel can is asked before anything is drawn.
        vectors = self._chain.vectors(like.new_empty(self._chain.features), self._c, inverse=True)
        if vectors is None:
            return None
        z = torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)
        x, ladj = self._chain(z, self._c, vectors, inverse=True)
        return z, x, ladj
