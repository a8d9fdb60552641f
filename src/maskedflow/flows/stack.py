"""Densities stacked: a mixture whose weights other rows have chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from maskedflow.distributions.base import Base, Shape, draw
from maskedflow.flows import LazyDistribution

_STEPS = 200


class Stack(LazyDistribution):
    r"""A lazy mixture of any lazy distributions of the same rows.

    .. math:: p(x \mid c) = \sum_k w_k \, p_k(x \mid c)

    A density costs that of all members, a sample that of one.

    Args:
        members: The lazy distributions :math:`p_k`.
        weights: Their weights :math:`w_k`, positive, with shape (K,).

    References:
        Linearly Combining Density Estimators via Stacking (Smyth and Wolpert, 1999)

    Example:
        >>> from maskedflow.flows import MAF
        >>> stack = Stack([MAF(2), MAF(2)], torch.tensor([0.3, 0.7]))
        >>> stack().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    positive = ("weights",)
    weights: Tensor

    def __init__(self, members: Sequence[LazyDistribution], weights: Tensor) -> None:
        super().__init__()
        if not members or weights.shape != (len(members),) or not (weights > 0).all():
            raise ValueError(
                f"weights: expected a positive one for each of {len(members)} members, "
                f"got {weights.tolist()}"
            )
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", weights / weights.sum())

    @property
    def is_rowwise(self) -> bool:  # type: ignore[override]
        return all(cast(LazyDistribution, member).is_rowwise for member in self.members)

    def log_probs_at(self, places: Tensor, c: Tensor | None = None) -> Tensor:
        members = cast(Iterable[LazyDistribution], self.members)
        return self.mix([member.log_probs_at(places, c) for member in members])

    def mix(self, log_probs: Sequence[Tensor]) -> Tensor:
        """The log-density, given that of each member."""
        return torch.logsumexp(torch.stack([*log_probs], dim=-1) + self.weights.log(), dim=-1)

    def forward(self, c: Tensor | None = None) -> StackDistribution:
        return StackDistribution(self, c)


class StackDistribution(Base):
    """The distribution that a :class:`Stack` makes for a context, with shape (*, context)."""

    def __init__(self, stack: Stack, c: Tensor | None) -> None:
        self.stack, self.c = stack, c
        event = stack.members[0](None if c is None else c[..., :1, :] if c.ndim > 1 else c)
        super().__init__(() if c is None else c.shape[:-1], event.event_shape)

    def __repr__(self) -> str:
        return f"StackDistribution(members={len(self.stack.members)})"

    def log_prob(self, value: Tensor) -> Tensor:
        return self.stack.mix([member(self.c).log_prob(value) for member in self.stack.members])

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws rows, each from a member that is drawn first."""
        shape = (*sample_shape, *self.batch_shape)
        x = self.stack.weights.new_empty(*shape, *self.event_shape)
        rows = x.view(-1, *self.event_shape)
        if not len(rows):
            return x
        c = None if self.c is None else self.c.expand(*shape, -1).reshape(len(rows), -1)
        chosen = self.stack.weights.multinomial(len(rows), replacement=True, generator=generator)
        for k, member in enumerate(self.stack.members):
            which = (chosen == k).nonzero()[:, 0]
            if len(which):
                given = None if c is None else c[which]
                size = (len(which),) if given is None else ()
                rows[which] = draw(member(given), size, generator).to(rows)
        return x


def stacking_weights(log_probs: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""The weights that make a mixture of densities likeliest, by expectation-maximisation.

    .. math:: w = \arg\max_w \sum_i v_i \log \sum_k w_k \, p_k(x_i)

    Args:
        log_probs: The log-densities of rows that none was fitted to, with shape (n, K).
        weight: How much each row counts, :math:`v_i`, with shape (n,); all alike if None.

    Returns:
        The weights, with shape (K,).

    Example:
        >>> stacking_weights(torch.tensor([[0.0, -9.0], [0.0, -9.0]])).round()
        tensor([1., 0.])
    """
    weights = torch.full(log_probs.shape[1:], 1 / log_probs.shape[1]).to(log_probs)
    weight = log_probs.new_ones(len(log_probs)) if weight is None else weight.to(log_probs)
    for _ in range(_STEPS):
        # Not as a product: those add up in an order that depends on the number of threads.
        total = (weight[:, None] * (log_probs + weights.log()).softmax(dim=1)).sum(dim=0)
        weights = total / total.sum()
    return weights
