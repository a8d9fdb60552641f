"""Distributions made of others: mixtures of them, and one beside the other."""

from __future__ import annotations

import copy
from textwrap import indent
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution

from .base import Base, Shape, draw, log_density, unvalidated
from .density import Density


class Mixture(Density):
    r"""A mixture of distributions.

    .. math:: \log p(x) = \log \sum_k w_k \, p_k(x)

    Its draws have no gradients.

    Args:
        base: The distributions :math:`p_k`, the last dimension of whose batch is the components'.
        logits: The unnormalised log-weights :math:`\log w_k`, with shape (*, K).

    Raises:
        ValueError: If the components of `base` and `logits` differ.

    Example:
        >>> from torch.distributions import Normal
        >>> d = Mixture(Normal(torch.tensor([-1.0, 1.0]), torch.ones(2)), torch.zeros(2))
        >>> d.log_prob(torch.tensor(0.0))
        tensor(-1.4189)
    """

    def __init__(self, base: Distribution, logits: Tensor) -> None:
        if base.batch_shape[-1:] != logits.shape[-1:] or not logits.ndim:
            raise ValueError(
                f"logits: expected shape (*, K) with the K of the base's batch shape "
                f"{tuple(base.batch_shape)}, got {tuple(logits.shape)}"
            )
        shape = torch.broadcast_shapes(base.batch_shape, logits.shape)
        self.base = unvalidated(base)
        if shape != base.batch_shape:
            self.base = self.base.expand(shape)
        self.logits = logits
        super().__init__(shape[:-1], base.event_shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base})"

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Mixture:
        new = copy.copy(self)
        new.base = self.base.expand(Size((*batch_shape, self.logits.shape[-1])))
        Base.__init__(new, batch_shape, self.event_shape)
        return new

    def density(self, value: Tensor) -> Tensor:
        each = log_density(self.base, value.unsqueeze(-1 - len(self.event_shape)))
        return torch.logsumexp(self.logits.log_softmax(dim=-1) + each, dim=-1)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            x = draw(self.base, sample_shape, generator)
            events = len(self.event_shape)
            chosen = self._choose(sample_shape, generator)
            index = chosen.reshape(*chosen.shape, *[1] * (1 + events))
            index = index.expand(*chosen.shape, 1, *self.event_shape)
            return x.gather(-1 - events, index).squeeze(-1 - events)

    def _choose(self, sample_shape: Shape, generator: torch.Generator | None) -> Tensor:
        """Draws components: the first arrival of Poisson processes with rates as the weights."""
        shape = (*sample_shape, *self.batch_shape, self.logits.shape[-1])
        waiting = torch.empty(shape, dtype=self.logits.dtype, device=self.logits.device)
        waiting.exponential_(generator=generator)
        return (waiting.log() - self.logits).argmin(dim=-1)


class Joint(Base):
    r"""The distribution of independent variables, one beside the other.

    .. math:: \log p(x) = \sum_i \log p_i(x_i)

    Args:
        marginals: The distributions :math:`p_i`, whose events are flattened.

    Example:
        >>> from torch.distributions import Normal, Uniform
        >>> d = Joint(Uniform(0.0, 1.0), Normal(0.0, 1.0))
        >>> d.log_prob(torch.tensor([0.5, 0.0]))
        tensor(-0.9189)
    """

    has_rsample = True

    def __init__(self, *marginals: Distribution) -> None:
        if not marginals:
            raise ValueError("marginals: expected at least one distribution, got none")
        shape = torch.broadcast_shapes(*(marginal.batch_shape for marginal in marginals))
        self.marginals = [unvalidated(marginal).expand(shape) for marginal in marginals]
        self.sizes = [marginal.event_shape.numel() for marginal in marginals]
        super().__init__(shape, (sum(self.sizes),))

    def __repr__(self) -> str:
        lines = "\n".join(map(repr, self.marginals))
        return f"Joint(\n{indent(lines, '  ')}\n)"

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Joint:
        return Joint(*(marginal.expand(Size(batch_shape)) for marginal in self.marginals))

    def log_prob(self, value: Tensor) -> Tensor:
        parts = value.split(self.sizes, dim=-1)
        total = value.new_zeros(())
        for part, marginal in zip(parts, self.marginals, strict=True):
            total = total + log_density(
                marginal, part.reshape(part.shape[:-1] + marginal.event_shape)
            )
        return total

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        shape = (*sample_shape, *self.batch_shape)
        parts = (draw(marginal, sample_shape, generator) for marginal in self.marginals)
        return torch.cat(
            [part.reshape(*shape, size) for part, size in zip(parts, self.sizes, strict=True)],
            dim=-1,
        )
