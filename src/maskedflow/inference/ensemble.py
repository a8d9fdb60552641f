"""Several densities trained alike, as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints

from maskedflow.distributions.base import Base, Shape, draw
from maskedflow.flows.flow import Flow, LazyDistribution


class Ensemble(LazyDistribution):
    r"""The mixture of several conditional flows, in equal parts.

    .. math:: p(x \mid c) = \frac{1}{K} \sum_k p_k(x \mid c)

    Args:
        members: The flows :math:`p_k`, each with an embedding.
        choices: Which of the candidates each is, the first ones if None.

    References:
        | A Crisis In Simulation-Based Inference? (Hermans et al., 2022), section 3
        | https://arxiv.org/abs/2110.06581

    Example:
        >>> from maskedflow.flows import MAF
        >>> members = (MAF(2, 3), MAF(2, 3))
        >>> ensemble = Ensemble([Flow(maf.transform, maf.base, nn.Flatten()) for maf in members])
        >>> ensemble(torch.zeros(4, 1, 3)).sample((5,)).shape
        torch.Size([5, 4, 2])
        >>> ensemble.given(torch.zeros(1, 3)).sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(self, members: Sequence[Flow], choices: Sequence[int] | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.choices = [0] * len(members) if choices is None else list(choices)

    def forward(self, c: Tensor | None = None) -> Distribution:
        return _together([member(c) for member in self.members])

    def given(self, c: Tensor) -> Distribution:
        """The distribution for one context of any shape, whose batch shape is empty."""
        made = []
        for member in cast(Sequence[Flow], self.members):
            assert member.embedding is not None
            with torch.no_grad():
                embedded = member.embedding(c[None])[0]
            made.append(Flow(member.transform, member.base)(embedded))
        return _together(made)


def _together(made: list[Distribution]) -> Distribution:
    return made[0] if len(made) == 1 else EqualMixture(made)


class EqualMixture(Base):
    r"""A mixture of distributions of any kind, in equal parts; its draws have no gradients.

    A sample, with all of its batch, is of one component.

    Args:
        components: Distributions with the same batch and event shapes.
    """

    def __init__(self, components: Sequence[Distribution]) -> None:
        self.components = components
        super().__init__(components[0].batch_shape, components[0].event_shape)

    @property
    def support(self) -> constraints.Constraint | None:
        return self.components[0].support

    def expand(self, batch_shape: Shape, _instance: Any = None) -> EqualMixture:
        return EqualMixture([one.expand(Size(batch_shape)) for one in self.components])

    def log_prob(self, value: Tensor) -> Tensor:
        each = torch.stack([one.log_prob(value) for one in self.components])
        return each.logsumexp(dim=0) - math.log(len(self.components))

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        shape, count = Size(sample_shape), len(self.components)
        chosen = torch.randint(count, (shape.numel(),), generator=generator)
        with torch.no_grad():
            parts = [
                draw(one, (int((chosen == k).sum()),), generator)
                for k, one in enumerate(self.components)
            ]
        # Drawn in the order of their components, and put where these were chosen.
        drawn = torch.cat(parts)
        found = torch.empty_like(drawn)
        found[chosen.argsort(stable=True)] = drawn
        return found.reshape(*shape, *drawn.shape[1:])
