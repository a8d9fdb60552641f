"""Order statistics: the sorted draws of one distribution, and the first few of them."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution

from .base import (
    Base,
    Shape,
    draw,
    log_density,
    probability_below,
    require_number,
    unvalidated,
)


class Sort(Base):
    r"""The distribution of n draws, sorted.

    .. math:: p(x) = n! \prod_i p(x_i), \quad x_1 \le \dots \le x_n

    Args:
        base: The distribution p of one number.
        n: The number of draws n.
        descending: Whether they descend.

    Raises:
        ValueError: If the base is not of one number.

    Example:
        >>> from torch.distributions import Normal
        >>> d = Sort(Normal(0.0, 1.0), 2)
        >>> d.log_prob(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor([-1.6447,    -inf])
    """

    def __init__(self, base: Distribution, n: int = 2, descending: bool = False) -> None:
        require_number(base)
        if n < 1:
            raise ValueError(f"n: expected at least 1, got {n}")
        self.base, self.n, self.descending = unvalidated(base), n, descending
        self.log_fact = math.lgamma(n + 1)
        super().__init__(base.batch_shape, (n,))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base}, {self.n})"

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Sort:
        new = copy.copy(self)
        new.base = self.base.expand(Size(batch_shape))
        Base.__init__(new, batch_shape, self.event_shape)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        x = value.movedim(-1, 0)
        steps = x.diff(dim=0)
        ordered = ((steps <= 0) if self.descending else (steps >= 0)).all(dim=0)
        log_prob = self.log_fact + log_density(self.base, x).sum(dim=0)
        return torch.where(ordered, log_prob, -math.inf)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            x = draw(self.base, (self.n, *sample_shape), generator).movedim(0, -1)
            return x.sort(dim=-1, descending=self.descending).values


class TopK(Sort):
    r"""The distribution of the first k of n sorted draws.

    .. math:: p(x) = \frac{n!}{(n - k)!} \, P(X \ge x_k)^{n - k} \prod_{i \le k} p(x_i), \quad
        x_1 \le \dots \le x_k

    Args:
        base: The distribution p of one number, which has a `cdf`.
        k: The number k of draws that are kept.
        n: The number of draws n.
        kwargs: What :class:`Sort` takes: `descending`.

    Raises:
        ValueError: If k is not from 1 to n - 1.

    Example:
        >>> from torch.distributions import Normal
        >>> TopK(Normal(0.0, 1.0), 2, 3).log_prob(torch.tensor([-1.0, 0.0]))
        tensor(-1.2393)
    """

    def __init__(self, base: Distribution, k: int = 1, n: int = 2, **kwargs: bool) -> None:
        if not 1 <= k < n:
            raise ValueError(f"k: expected from 1 to n - 1 = {n - 1}, got {k}")
        super().__init__(base, n, **kwargs)
        self.k = k
        self.log_fact -= math.lgamma(n - k + 1)
        self._event_shape = Size([k])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base}, {self.k}, {self.n})"

    def log_prob(self, value: Tensor) -> Tensor:
        rest = probability_below(self.base, value[..., -1])
        log_rest = rest.log() if self.descending else torch.log1p(-rest)
        return (self.n - self.k) * log_rest + super().log_prob(value)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        return super().sample(sample_shape, generator)[..., : self.k]


class Minimum(TopK):
    r"""The distribution of the least of n draws.

    .. math:: p(x) = n \, p(x) \, P(X \ge x)^{n - 1}

    Args:
        base: The distribution p of one number, which has a `cdf`.
        n: The number of draws n.

    Example:
        >>> from torch.distributions import Normal
        >>> Minimum(Normal(0.0, 1.0), 3).log_prob(torch.tensor(0.0))
        tensor(-1.2066)
    """

    _descending = False

    def __init__(self, base: Distribution, n: int = 2) -> None:
        super().__init__(base, 1, n, descending=self._descending)
        self._event_shape = Size()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base}, {self.n})"

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value[..., None])

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        return super().sample(sample_shape, generator)[..., 0]


class Maximum(Minimum):
    r"""The distribution of the greatest of n draws.

    .. math:: p(x) = n \, p(x) \, P(X \le x)^{n - 1}

    It takes what :class:`Minimum` takes.

    Example:
        >>> from torch.distributions import Normal
        >>> Maximum(Normal(0.0, 1.0), 3).log_prob(torch.tensor(0.0))
        tensor(-1.2066)
    """

    _descending = True
