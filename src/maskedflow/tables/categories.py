"""The distribution of rows of categories."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from maskedflow.distributions import refuse_nan
from maskedflow.distributions.base import Base, Shape
from maskedflow.flows import LazyDistribution
from maskedflow.flows.flow import check_context
from maskedflow.nn import MaskedLinear, MaskedMLP
from maskedflow.transforms import check_features


def one_hot(codes: Tensor, levels: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Writes each code as a one-hot vector, side by side; refuses other codes."""
    check_features("codes", codes, len(levels))
    sizes = torch.tensor(levels, device=codes.device)
    wrong = (codes < 0) | (codes >= sizes)
    if wrong.any():
        index = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"codes: expected 0..{levels[index[-1]] - 1} in column {index[-1]}, "
            f"got {codes[tuple(index)].item()}"
        )
    starts = torch.tensor([0, *accumulate(levels)][:-1], dtype=torch.long, device=codes.device)
    ones = torch.zeros(*codes.shape[:-1], sum(levels), dtype=dtype, device=codes.device)
    return ones.scatter(-1, codes + starts, 1.0)


class AutoregressiveCategorical(LazyDistribution):
    r"""A lazy distribution of rows of categories, each given those before it.

    .. math:: P(k_1, \dots, k_K \mid c) = \prod_i
        \text{softmax}(\theta_i(k_{\pi(i)}) + \phi_i(k_{<i}, c))_{k_i}

    One masked network makes the logits :math:`\phi_i` of all columns from the one-hot vectors of
    their predecessors, so a probability costs one pass and a sample K passes. With `parents` there
    are logits :math:`\theta_i` besides, a table for each column and the one before it that says
    most about it. Probabilities sum to one exactly, and so do those of the first columns alone: the
    product of their factors.

    Args:
        levels: The number of levels of each column, K of them.
        context: The number of context features.
        hidden_features: The width of each hidden layer; no network, and no context, if None.
        parents: For each column the place of the one before it that its table is given, -1 for
            none; no tables if None.
        kwargs: What :class:`maskedflow.nn.MaskedMLP` takes: `activation`, `residual`, `generator`.

    Raises:
        ValueError: If there is no column, or one without a level.

    References:
        | MADE (Germain et al., 2015), section 3, https://arxiv.org/abs/1502.03509
        | The Neural Autoregressive Distribution Estimator (Larochelle and Murray, 2011), equation 1
        | https://proceedings.mlr.press/v15/larochelle11a.html

    Example:
        >>> categories = AutoregressiveCategorical([2, 3])
        >>> every = torch.cartesian_prod(torch.arange(2), torch.arange(3))
        >>> round(categories().log_prob(every).exp().sum().item(), 6)
        1.0
    """

    def __init__(
        self,
        levels: Sequence[int],
        context: int = 0,
        hidden_features: Sequence[int] | None = (64, 64),
        parents: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if not levels or min(levels) < 1:
            raise ValueError(f"levels: expected one or more numbers >= 1, got {list(levels)}")
        if context < 0:
            raise ValueError(f"context: expected at least 0, got {context}")
        if hidden_features is None and parents is None:
            raise ValueError("hidden_features, parents: expected one of them, got none")
        self.levels, self.context = tuple(levels), context
        self.hyper = None
        if hidden_features is not None:
            column = torch.arange(len(levels)).repeat_interleave(torch.tensor(levels))
            before = column[:, None] > column
            mask = torch.cat([before, before.new_ones(len(column), context)], dim=1)
            self.hyper = MaskedMLP(
                mask, hidden_features, context=context, generation=column + 1, **kwargs
            )
        self.tables = None if parents is None else LogitTables(self.levels, parents)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, context={self.context}"

    @property
    def is_rowwise(self) -> bool:  # type: ignore[override]
        return self.hyper is None

    def forward(self, c: Tensor | None = None) -> AutoregressiveCategoricalDistribution:
        """Makes the distribution for the context `c`, with shape (*, context), or none."""
        check_context(c, self.context)
        if c is not None:
            refuse_nan("c", c)
        return AutoregressiveCategoricalDistribution(self, c)

    @torch.no_grad()
    def start_at(self, codes: Tensor, weight: Tensor | None = None) -> None:
        r"""Starts at the frequencies of each column, as if columns were independent.

        The biases of the logits become :math:`\log \frac{n_l + 1/L}{n + 1}`, the frequencies of
        levels that share one more row, of rows of codes, (n, K), that may have weights, (n,); the
        weights of the logits become small.

        Raises:
            ValueError: If there is no network.
        """
        if self.hyper is None:
            raise ValueError("hidden_features: expected a network to start, got None")
        ones = one_hot(codes, self.levels, torch.float64)
        weight = ones.new_ones(len(ones)) if weight is None else weight.to(ones)
        counts = (weight @ ones).split(self.levels)
        total = weight.sum() + 1
        start = [((count + 1 / len(count)) / total).log() for count in counts]
        last = cast(MaskedLinear, self.hyper.layers[-1])
        cast(Tensor, last.bias).copy_(torch.cat(start))
        last.weight.mul_(1e-2)
        if self.hyper.context is not None and len(self.hyper.layers) == 1:
            self.hyper.context.weight.mul_(1e-2)


class LogitTables(nn.Module):
    """Logits of each column given its parent, one of those before it or none (-1), in tables."""

    given: Tensor
    width: Tensor
    begin: Tensor

    def __init__(self, levels: Sequence[int], parents: Sequence[int]) -> None:
        super().__init__()
        if len(parents) != len(levels) or any(not -1 <= p < k for k, p in enumerate(parents)):
            raise ValueError(f"parents: expected a place before each column's, got {list(parents)}")
        count = torch.tensor(levels)
        given = torch.tensor([max(parent, 0) for parent in parents])
        width = torch.where(torch.tensor(parents) >= 0, count, 0)
        size = torch.where(width > 0, count[given], 1) * count
        begin = size.cumsum(0) - size
        level = torch.cat([torch.arange(each) for each in levels])
        begin = begin.repeat_interleave(count) + level
        self.register_buffer("given", given.repeat_interleave(count), persistent=False)
        self.register_buffer("width", width.repeat_interleave(count), persistent=False)
        self.register_buffer("begin", begin, persistent=False)
        self.logits = nn.Parameter(torch.zeros(int(size.sum())))

    def forward(self, codes: Tensor, part: slice = slice(None)) -> Tensor:
        """The logits of all columns side by side, or of a part of them, with shape (*, part)."""
        place = codes[..., self.given[part]] * self.width[part] + self.begin[part]
        return self.logits[place]


class AutoregressiveCategoricalDistribution(Base):
    """The distribution that an :class:`AutoregressiveCategorical` makes for a context, (*, C)."""

    def __init__(self, categories: AutoregressiveCategorical, c: Tensor | None = None) -> None:
        self.categories, self.levels, self.c = categories, categories.levels, c
        super().__init__(() if c is None else c.shape[:-1], (len(self.levels),))

    def __repr__(self) -> str:
        return f"AutoregressiveCategoricalDistribution(levels={self.levels})"

    @property
    def support(self) -> constraints.Constraint:
        """Integers from 0 on, below the number of levels."""
        upper = torch.tensor(self.levels) - 1
        return constraints.independent(constraints.integer_interval(0, upper), 1)

    def logits(self, codes: Tensor) -> list[Tensor]:
        """The logits of each column given the codes before it, with shape (*, L_k) each."""
        return list(self._logits(codes, slice(None)).split(self.levels, dim=-1))

    def _logits(self, codes: Tensor, part: slice) -> Tensor:
        """The logits of all columns side by side, or of a part of them."""
        hyper, tables = self.categories.hyper, self.categories.tables
        if hyper is None:
            total = cast(LogitTables, tables)(codes, part)
            shape = torch.broadcast_shapes(total.shape[:-1], self.batch_shape)
            return cast(Tensor, total.expand(*shape, -1))
        ones = one_hot(codes, self.levels, next(hyper.parameters()).dtype)
        made = cast(Tensor, hyper(ones, self.c))[..., part]
        return made if tables is None else made + tables(codes, part)

    def log_probs(self, codes: Tensor) -> Tensor:
        r"""The terms :math:`\log P(k_i \mid k_{<i}, c)`, in nats.

        The sum of the first j of them is the log-probability of the first j columns alone. Codes
        are whole numbers in any dtype, with shape (*, K).

        Raises:
            ValueError: If the shape does not fit, or a code is not one of its column's levels.
        """
        codes = codes.long()
        logits = self.logits(codes)
        codes = codes.expand(*logits[0].shape[:-1], -1)
        pairs = zip(logits, codes.split(1, dim=-1), strict=True)
        return torch.cat([part.log_softmax(-1).gather(-1, code) for part, code in pairs], dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of each row, in nats, in one pass: the sum of :meth:`log_probs`."""
        return self.log_probs(value).sum(dim=-1)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws rows of codes, int64, with shape (*sample_shape, *batch, K), in K passes."""
        device = next(self.categories.parameters()).device
        none = torch.zeros((*sample_shape, *self.batch_shape, 0), dtype=torch.long, device=device)
        return self.sample_after(none, generator)

    @torch.no_grad()
    def sample_after(self, first: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws the codes behind the first ones of each row, (*, j): all codes, (*, K)."""
        shape = first.shape[:-1]
        codes = first.new_zeros((*shape, len(self.levels)))
        codes[..., : first.shape[-1]] = first
        ends = list(accumulate(self.levels))
        for column, (count, end) in enumerate(zip(self.levels, ends, strict=True)):
            if column < first.shape[-1]:
                continue
            share = self._logits(codes, slice(end - count, end)).softmax(dim=-1)
            drawn = share.reshape(-1, share.shape[-1]).multinomial(1, generator=generator)
            codes[..., column] = drawn.view(shape)
        return codes
