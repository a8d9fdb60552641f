"""Independent variables side by side."""

from __future__ import annotations

from textwrap import indent
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution

from .base import Base, Shape, draw, log_density, unvalidated


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
