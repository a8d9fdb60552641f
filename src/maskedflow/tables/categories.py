"""The distribution of rows of categories."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints

from maskedflow.distributions import refuse_nan
from maskedflow.distributions.base import Base, Shape
from maskedflow.flows import LazyDistribution
from maskedflow.flows.layers import check_context
from maskedflow.nn import MaskedLinear, MaskedMLP
from maskedflow.transforms import check_features

__all__ = ["AutoregressiveCategorical", "AutoregressiveCategoricalDistribution", "one_hot"]


def one_hot(codes: Tensor, levels: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Writes each code as a one-hot vector, side by side.

    Args:
        codes: The codes, integers in 0..L_k - 1 for column k, with shape (*, K).
        levels: The number of levels L_k of each column.
        dtype: The dtype of the ones.

    Raises:
        ValueError: If a code is none of its column's levels.

    Example:
        >>> one_hot(torch.tensor([1, 2]), [2, 3], torch.float32)
        tensor([0., 1., 0., 0., 1.])
    """
    check_features("codes", codes, len(levels))
    sizes = torch.tensor(levels, device=codes.device)
    wrong = (codes < 0) | (codes >= sizes)
    if wrong.any():
        index = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"codes: expected 0..{levels[index[-1]] - 1} in column {index[-1]}, "
            f"got {codes[tuple(index)].item()}"
        )
    starts = torch.tensor([0, *accumulate(levels)][:-1], device=codes.device)
    ones = torch.zeros(*codes.shape[:-1], sum(levels), dtype=dtype, device=codes.device)
    return ones.scatter(-1, codes + starts, 1.0)


class AutoregressiveCategorical(LazyDistribution):
    r"""A lazy distribution of rows of categories, each given those before it.

    .. math:: P(k_1, \dots, k_K \mid c) = \prod_i \text{softmax}(\phi_i(k_{<i}, c))_{k_i}

    One masked network makes the logits :math:`\phi_i` of all columns from the one-hot vectors of
    their predecessors, so a probability costs one pass and a sample K passes. Probabilities sum to
    one exactly, and so do those of the first columns alone: the product of their factors.

    Args:
        levels: The number of levels of each column, K of them.
        context: The number of context features.
        hidden_features: The width of each hidden layer.
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
        hidden_features: Sequence[int] = (64, 64),
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if not levels or min(levels) < 1:
            raise ValueError(f"levels: expected one or more numbers >= 1, got {list(levels)}")
        if context < 0:
            raise ValueError(f"context: expected at least 0, got {context}")
        self.levels, self.context = tuple(levels), context
        column = torch.arange(len(levels)).repeat_interleave(torch.tensor(self.levels))
        before = column[:, None] > column
        on_context = torch.ones(len(column), context, dtype=torch.bool)
        self.hyper = MaskedMLP(
            torch.cat([before, on_context], dim=1),
            hidden_features,
            context=context,
            generation=column + 1,
            **kwargs,
        )

    def extra_repr(self) -> str:
        return f"levels={self.levels}, context={self.context}"

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
        levels that share one more row, and their weights become small.

        Args:
            codes: The rows to count, with shape (n, K).
            weight: How much each row counts, with shape (n,); all alike, one each, if None.
        """
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


class AutoregressiveCategoricalDistribution(Base):
    """The distribution that an :class:`AutoregressiveCategorical` makes for a context.

    Args:
        categories: The module that makes the logits.
        c: The context, with shape (*, context), or none.
    """

    def __init__(self, categories: AutoregressiveCategorical, c: Tensor | None = None) -> None:
        self.levels, self.hyper, self.c = categories.levels, categories.hyper, c
        super().__init__(() if c is None else c.shape[:-1], (len(self.levels),))

    def __repr__(self) -> str:
        return f"AutoregressiveCategoricalDistribution(levels={self.levels})"

    @property
    def support(self) -> constraints.Constraint:
        """Integers from 0 on, below the number of levels."""
        upper = torch.tensor(self.levels) - 1
        return constraints.independent(constraints.integer_interval(0, upper), 1)

    @property
    def _bias(self) -> Tensor:
        return cast(Tensor, self.hyper.layers[-1].bias)

    def logits(self, codes: Tensor) -> list[Tensor]:
        """The logits of each column given the codes before it, with shape (*, L_k) each."""
        ones = one_hot(codes, self.levels, self._bias.dtype)
        return list(self.hyper(ones, self.c).split(self.levels, dim=-1))

    def log_probs(self, codes: Tensor) -> Tensor:
        r"""The terms :math:`\log P(k_i \mid k_{<i}, c)`, in nats.

        The sum of the first j of them is the log-probability of the first j columns alone.

        Args:
            codes: The rows, of whole numbers in any dtype, with shape (*, K).

        Raises:
            ValueError: If the shape does not fit, or a code is none of its column's levels.
        """
        codes = codes.long()
        logits = self.logits(codes)
        shape = logits[0].shape[:-1]
        codes = codes.expand(*shape, -1).reshape(-1, len(self.levels))
        terms = [
            -F.cross_entropy(part.reshape(-1, part.shape[-1]), column, reduction="none")
            for part, column in zip(logits, codes.unbind(dim=-1), strict=True)
        ]
        return torch.stack(terms, dim=-1).view(*shape, len(self.levels))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of each row, in nats, at the price of one pass.

        Args:
            value: The rows, of whole numbers in any dtype, with shape (*, K).

        Raises:
            ValueError: If the shape does not fit, or a code is none of its column's levels.
        """
        return self.log_probs(value).sum(dim=-1)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws rows of codes, int64, with shape (*sample_shape, *batch, K), in K passes."""
        shape = (*sample_shape, *self.batch_shape, len(self.levels))
        codes = torch.zeros(shape, dtype=torch.long, device=self._bias.device)
        for column in range(len(self.levels)):
            share = self.logits(codes)[column].softmax(dim=-1)
            drawn = share.reshape(-1, share.shape[-1]).multinomial(1, generator=generator)
            codes[..., column] = drawn.view(codes.shape[:-1])
        return codes
