"""Mixtures of products: numbers that are independent within each of many components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Size, Tensor

from maskedflow.chain import version
from maskedflow.distributions.base import Base, Shape
from maskedflow.flows import LazyDistribution
from maskedflow.flows.flow import check_context
from maskedflow.kernels.cache import compiled

from .missing import observed_features

_FAR = 40.0
"""Components whose terms are so much smaller, in nats, than the largest so far are left out."""
_BLOCK = 16
"""Components, leaves that follow each other in a tree, which have a box around them."""


NEVER = -700.0
"""The log-share of a level that a component does not have: a file holds no infinity."""


class MixtureOfProducts(LazyDistribution):
    r"""A lazy mixture of (truncated) normals, independent within each component, given codes.

    .. math:: p(z, a) = \sum_k w_k \prod_j P_{kj}(a_j) \prod_d p_{kd}(z_d)

    is a joint density of numbers z and codes a. What is made here is that of z given a: the weight
    of each component is proportional to :math:`w_k \prod_j P_{kj}(a_j)`. Further numbers of the
    context enter the weights by normal densities, as codes do. Terms of absent numbers are left
    out, which makes it the density of the others.

    The context is one-hot codes, then further numbers. A density costs K comparisons and the terms
    of the components that are near; the weights given one context cost K (D + J), once for equal
    contexts. All that is fitted are buffers.

    Args:
        components: How many components there are, K.
        present: For each of D features the dimension of the context that is 1 if it is observed and
            0 if not; None if it always is.
        levels: How many levels each code has.
        given: How many further numbers the context has.
        truncated: Whether components have bounds.

    Example:
        >>> mixture = MixtureOfProducts(2, present=[None], levels=[2])
        >>> _ = mixture.loc.copy_(torch.tensor([[-1.0], [1.0]]))
        >>> _ = mixture.log_share.copy_(torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log())
        >>> z, c = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> mixture(c).log_prob(z).exp()
        tensor([0.0885, 0.3644])
    """

    is_rowwise = True

    log_weight: Tensor
    log_share: Tensor
    loc: Tensor
    scale: Tensor
    low: Tensor | None
    high: Tensor | None

    def __init__(
        self,
        components: int,
        present: Sequence[int | None],
        levels: Sequence[int] = (),
        given: int = 0,
        truncated: bool = False,
    ) -> None:
        super().__init__()
        self.present, self.levels, self.given = tuple(present), tuple(levels), given
        shape = components, len(self.present) + given
        sizes = torch.tensor(self.levels, dtype=torch.float64)
        share = -sizes.log().repeat_interleave(sizes.long())
        self.register_buffer("log_weight", torch.zeros(components, dtype=torch.float64))
        self.register_buffer("log_share", share.repeat(components, 1))
        self.register_buffer("loc", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(shape, dtype=torch.float64))
        wide = torch.full(shape, math.inf, dtype=torch.float64) if truncated else None
        self.register_buffer("low", None if wide is None else -wide)
        self.register_buffer("high", wide)
        self._known: tuple[tuple[object, ...], _Components] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": None}

    def extra_repr(self) -> str:
        features = len(self.present)
        return f"components={len(self.loc)}, features={features}, levels={self.levels}"

    def forward(self, c: Tensor | None = None) -> ProductsDistribution:
        """Makes the mixture for the context `c`, with shape (*, C), or none."""
        check_context(c, sum(self.levels) + self.given)
        return ProductsDistribution(self, c)

    def components(self) -> _Components:
        """What the loops read."""
        buffers = [one for one in self._buffers.values() if one is not None]
        key = tuple((id(one), version(one)) for one in buffers)
        if self._known is None or self._known[0] != key:
            self._known = key, self._components()
        return self._known[1]

    def _components(self) -> _Components:
        loc, scale = self.loc.double(), self.scale.double()
        low = torch.full_like(loc, -math.inf) if self.low is None else self.low.double()
        high = torch.full_like(loc, math.inf) if self.high is None else self.high.double()
        mass = log_mass((low - loc) / scale, (high - loc) / scale)
        constant = -scale.log() - 0.5 * math.log(2 * math.pi) - mass
        parts = torch.stack([loc, 1 / scale, low, high], dim=-1)
        features = len(self.present)
        lows, highs = low[:, :features].split(_BLOCK), high[:, :features].split(_BLOCK)
        boxes = torch.stack(
            [
                torch.stack([one.amin(dim=0), other.amax(dim=0)], dim=-1)
                for one, other in zip(lows, highs, strict=True)
            ]
        )
        tensors = self.log_weight.double(), self.log_share.double(), constant, parts, boxes
        return _Components(*(one.contiguous().numpy() for one in tensors))


class _Components(NamedTuple):
    """Logarithms of weights, (K,), and of shares of levels, (K, L), and what densities are of."""

    log_weight: NDArray[np.float64]
    log_share: NDArray[np.float64]
    constant: NDArray[np.float64]
    parts: NDArray[np.float64]
    """Means, reciprocal standard deviations, and bounds, (K, F, 4)."""
    boxes: NDArray[np.float64]
    """Bounds of blocks of components, (K / 16, D, 2)."""


class _Given(NamedTuple):
    """The context of rows: places of their levels, whether numbers are observed, and numbers."""

    codes: NDArray[np.int64]
    observed: NDArray[np.bool_]
    numbers: NDArray[np.float64]


class ProductsDistribution(Base):
    """The distribution that a :class:`MixtureOfProducts` makes for a context, with shape (*, C)."""

    def __init__(
        self, mixture: MixtureOfProducts, c: Tensor | None, batch_shape: Shape | None = None
    ) -> None:
        self.mixture, self.c = mixture, c
        if batch_shape is None:
            batch_shape = () if c is None else c.shape[:-1]
        super().__init__(batch_shape, (len(mixture.present),))

    def __repr__(self) -> str:
        return f"ProductsDistribution({self.mixture.extra_repr()})"

    def expand(self, batch_shape: Shape, _instance: Any = None) -> ProductsDistribution:
        c = None if self.c is None else self.c.expand(*batch_shape, -1)
        return ProductsDistribution(self.mixture, c, Size(batch_shape))

    @torch.no_grad()
    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        found, _ = self._visit(value, torch.zeros(shape), True)
        return found.view(shape).to(value.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws rows, each of a component that is drawn first; absent numbers are 0."""
        shape = Size((*sample_shape, *self.batch_shape))
        u = torch.rand(shape, dtype=torch.float64, generator=generator)
        v = torch.rand(*shape, *self.event_shape, dtype=torch.float64, generator=generator)
        none = torch.zeros(*shape, *self.event_shape)
        _, chosen = self._visit(none, u, False)
        loc, scale, low, high = self._features(chosen)
        z = loc + scale * _quantile((low - loc) / scale, (high - loc) / scale, v.view(loc.shape))
        z = z.clamp(low, high).view(v.shape)
        observed = observed_features(self.mixture.present, self.c)
        z = z if observed is None else torch.where(observed, z, 0)
        return z.to(self.mixture.loc.dtype)

    @torch.no_grad()
    def residuals(self, z: Tensor, u: Tensor) -> Tensor:
        """PIT residuals, (n, D): how likely less is within a component, which `u`, (n,), draws."""
        _, chosen = self._visit(z, u, True)
        loc, scale, low, high = self._features(chosen)
        low, high = (low - loc) / scale, (high - loc) / scale
        z = ((z.reshape(loc.shape) - loc) / scale).clamp(low, high)
        found = (log_mass(low, z) - log_mass(low, high)).exp()
        return found.view(*u.shape, -1).to(u.dtype)

    def _features(self, chosen: Tensor) -> tuple[Tensor, ...]:
        """The means, deviations and bounds of the numbers of components."""
        parts = self.mixture.components().parts[:, : self.event_shape[0]]
        loc, inverse, low, high = torch.from_numpy(parts)[chosen].unbind(dim=-1)
        return loc, 1 / inverse, low, high

    def _visit(self, z: Tensor, u: Tensor, seen: bool) -> tuple[Tensor, Tensor]:
        """The log-density of each row, and a component that `u` draws, given z if it is `seen`."""
        rows, given, order = self._rows(z, u.shape)
        log_probs, chosen = np.empty(len(rows)), np.empty(len(rows), dtype=np.int64)
        part = u.double().reshape(-1).numpy()
        _visit(rows, *given, *self.mixture.components(), order, part, seen, log_probs, chosen)
        return torch.from_numpy(log_probs), torch.from_numpy(chosen)

    def _rows(self, value: Tensor, shape: Size) -> tuple[Any, _Given, Any]:
        """The rows of values and of the context, and an order in which equal contexts follow."""
        features, levels = len(self.mixture.present), self.mixture.levels
        z = value.double().expand(*shape, features).reshape(-1, features).contiguous()
        c = self.c
        c = z.new_zeros(*shape, 0) if c is None else c.double().expand(*shape, -1)
        c = c.reshape(len(z), -1)
        observed = observed_features(self.mixture.present, c)
        observed = torch.ones_like(z, dtype=torch.bool) if observed is None else observed
        total = sum(levels)
        starts = [0, *accumulate(levels)]
        picked = [
            start + part.argmax(dim=1)
            for start, part in zip(starts, c[:, :total].split(levels, dim=1), strict=False)
        ]
        codes = torch.stack(picked, dim=1) if picked else torch.zeros(len(z), 0, dtype=torch.long)
        given = _Given(codes.numpy(), observed.numpy(), c[:, total:].contiguous().numpy())
        order = np.lexsort(codes.numpy().T) if picked else np.arange(len(z))
        return z.numpy(), given, order


def log_mass(low: Tensor, high: Tensor) -> Tensor:
    """The logarithm of the standard normal's mass between two numbers, in its tails, too."""
    mirrored = low > 0
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    below, up_to = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    found: Tensor = up_to + torch.log1p(-(below - up_to).exp())
    return found


def _quantile(low: Tensor, high: Tensor, v: Tensor) -> Tensor:
    """The quantiles of a standard normal between two bounds."""
    mirrored = low > 0
    a, b = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    v = torch.where(mirrored, 1 - v, v)
    below = torch.special.ndtr(a)
    z = torch.special.ndtri(below + v * (torch.special.ndtr(b) - below))
    return torch.where(mirrored, -z, z)


@compiled
def _weigh(
    i: int,
    codes: Any,
    observed: Any,
    numbers: Any,
    log_weight: Any,
    log_share: Any,
    constant: Any,
    parts: Any,
    weights: Any,
    starts: Any,
) -> float:
    """Finds weights given a row's context, and adds the constants of numbers that are observed.

    Says the logarithm of the sum of the weights.
    """
    features, top = observed.shape[1], -np.inf
    for k in range(len(log_weight)):
        t = log_weight[k]
        for j in range(codes.shape[1]):
            t += log_share[k, codes[i, j]]
        for g in range(numbers.shape[1]):
            r = (numbers[i, g] - parts[k, features + g, 0]) * parts[k, features + g, 1]
            t += constant[k, features + g] - 0.5 * r * r
        weights[k] = t
        top = max(top, t)
        for d in range(features):
            if observed[i, d]:
                t += constant[k, d]
        starts[k] = t
    total = 0.0
    for k in range(len(log_weight)):
        if weights[k] > top - _FAR:
            total += math.exp(weights[k] - top)
    return top + math.log(total)


@compiled
def _see(i: int, z: Any, observed: Any, parts: Any, boxes: Any, starts: Any, terms: Any) -> float:
    """Finds the logarithms of the terms of a row, minus infinity where far; says the largest."""
    top = -np.inf
    terms[:] = -np.inf
    for block in range(len(boxes)):
        inside = True
        for d in range(z.shape[1]):
            if observed[i, d] and not boxes[block, d, 0] < z[i, d] <= boxes[block, d, 1]:
                inside = False
                break
        if not inside:
            continue
        for k in range(block * _BLOCK, min((block + 1) * _BLOCK, len(starts))):
            t = starts[k]
            for d in range(z.shape[1]):
                if t < top - _FAR:
                    break
                if observed[i, d]:
                    x = z[i, d]
                    if not parts[k, d, 2] < x <= parts[k, d, 3]:
                        t = -np.inf
                        break
                    r = (x - parts[k, d, 0]) * parts[k, d, 1]
                    t -= 0.5 * r * r
            if t >= top - _FAR:
                terms[k] = t
                top = max(top, t)
    return top


@compiled
def _is_as(i: int, j: int, codes: Any, observed: Any, numbers: Any) -> bool:
    """Whether two rows have the same context."""
    same = True
    for k in range(codes.shape[1]):
        same &= codes[i, k] == codes[j, k]
    for k in range(observed.shape[1]):
        same &= observed[i, k] == observed[j, k]
    for k in range(numbers.shape[1]):
        same &= numbers[i, k] == numbers[j, k]
    return same


@compiled
def _visit(
    z: Any,
    codes: Any,
    observed: Any,
    numbers: Any,
    log_weight: Any,
    log_share: Any,
    constant: Any,
    parts: Any,
    boxes: Any,
    order: Any,
    u: Any,
    seen: bool,
    log_probs: Any,
    chosen: Any,
) -> None:
    """Finds log-densities, and draws components, given the numbers too if they are `seen`."""
    size, before, total = len(log_weight), -1, 0.0
    weights, starts, terms = np.empty(size), np.empty(size), np.empty(size)
    for i in order:
        if before < 0 or not _is_as(i, before, codes, observed, numbers):
            total = _weigh(
                i, codes, observed, numbers, log_weight, log_share, constant, parts, weights, starts
            )
            before = i
        if seen:
            top = _see(i, z, observed, parts, boxes, starts, terms)
        else:
            terms[:] = weights
            top = total
        chosen[i], log_probs[i] = 0, -np.inf
        if top == -np.inf:
            continue
        mass = 0.0
        for k in range(size):
            terms[k] = math.exp(terms[k] - top) if terms[k] > top - _FAR else 0.0
            mass += terms[k]
        log_probs[i] = top + math.log(mass) - total
        left = u[i] * mass
        for k in range(size):
            if terms[k] > 0:
                chosen[i] = k
                left -= terms[k]
                if left < 0:
                    break
