"""Lazy distributions: modules that make a distribution, given a context."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from maskedflow.distributions import DiagNormal, NormalizingFlow, refuse_nan
from maskedflow.transforms.lazy import LazyComposedTransform, LazyTransform, Unconditional

from .keywords import NamesKeywords

__all__ = ["Flow", "LazyDistribution", "UnconditionalDistribution", "standard_normal"]


class LazyDistribution(nn.Module, metaclass=NamesKeywords):
    """A module whose call makes the distribution p(x | c), given a context c."""

    @abc.abstractmethod
    def forward(self, c: Tensor | None = None) -> Distribution:
        """Makes the distribution for the context `c`, with shape (*, context), or none."""

    def given(self, c: Tensor | None) -> Distribution:
        """Makes the distribution for a context that nobody has looked at."""
        return cast(Distribution, self(c))


class UnconditionalDistribution(Unconditional, LazyDistribution):
    """A lazy distribution made by a constructor, whatever the context.

    Args:
        f: The constructor of the distribution.
        args: Its positional arguments. Tensors become parameters, or buffers.
        buffer: Whether tensors become buffers.
        kwargs: Its keyword arguments, alike.

    Example:
        >>> UnconditionalDistribution(DiagNormal, torch.zeros(3), torch.ones(3), buffer=True)()
        DiagNormal(loc: torch.Size([3]), scale: torch.Size([3]))
    """

    positive = ("scale",)


def standard_normal(features: int) -> UnconditionalDistribution:
    """The base N(0, I)."""
    return UnconditionalDistribution(
        DiagNormal, loc=torch.zeros(features), scale=torch.ones(features), buffer=True
    )


class Flow(LazyDistribution):
    """A lazy normalizing flow: transforms from data to latent, and a base for the latent.

    Args:
        transform: A lazy transform, or a sequence of them, the first applied to the data.
        base: The lazy distribution of the latent.
        embedding: A network that the context goes through first.

    Example:
        >>> from maskedflow.flows import MAF
        >>> from maskedflow.transforms import Standardize
        >>> maf = MAF(2)
        >>> flow = Flow([Standardize(torch.zeros(2), 10 * torch.ones(2)), maf.transform], maf.base)
        >>> flow().sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        transform: LazyTransform | Sequence[LazyTransform],
        base: LazyDistribution,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(transform, LazyTransform):
            transform = LazyComposedTransform(*transform)
        self.transform = transform
        self.base = base
        self.embedding = embedding

    def forward(self, c: Tensor | None = None) -> NormalizingFlow:
        """Makes the distribution p(x | c).

        Args:
            c: The context, with shape (*, context), or none.

        Returns:
            The distribution, whose batch shape is that of `c`.

        Raises:
            ValueError: If a context is missing, needless, of another size, or not finite.
        """
        if c is not None:
            refuse_nan("c", c, infinite=False)
        return self.given(c)

    def given(self, c: Tensor | None) -> NormalizingFlow:
        origin = () if c is None else (c,)
        if c is not None and self.embedding is not None:
            c = cast(Tensor, self.embedding(c))
        # What an embedding makes of a finite context need not be finite.
        base = self.base(c) if self.embedding is None else self.base.given(c)
        transform = self.transform(c)
        flow = NormalizingFlow(transform, base if c is None else base.expand(c.shape[:-1]))
        return flow.made_by(self, given, *origin)


def given(module: LazyDistribution, c: Tensor | None = None) -> Any:
    """Makes the distribution by a module, for a context that nobody has looked at."""
    return module.given(c)
