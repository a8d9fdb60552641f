"""A chain of numbers, each given those before it by boosted trees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from maskedflow.distributions.base import Base, Shape
from maskedflow.flows import LazyDistribution
from maskedflow.kernels import trees as kernel

from .missing import observed_features

CATEGORICAL = 254
"""The most levels of a code that scikit-learn takes as it is; more are put in order."""


class ChainSize(NamedTuple):
    """What a chain's tensors are as large as: cells of a number, trees, their nodes, and splits."""

    cells: int
    trees: int
    nodes: int
    splits: int


class BoostedChain(LazyDistribution):
    r"""A lazy chain of numbers that are near to N(0, 1), each one given those before it.

    .. math:: p(z \mid c) = \prod_d P(k_d \mid z_{<d}, c) \;
        \frac{\varphi(z_d)}{\Phi(b_{k_d}) - \Phi(a_{k_d})}

    A number's cell k, between a and b, is found by halving: of the cells that are left, boosted
    trees give the upper half its probability, given c, the numbers before, and which cells these
    are. That is mixed with what N(0, 1) gives it. Absent numbers are missing to the trees, and
    their terms are left out.

    A density costs the depth of all trees, and so does a sample.

    Args:
        levels: The levels of the codes with whose one-hot vectors the context begins.
        present: For each number the dimension of the context that is 1 if it is observed and 0 if
            not; None if it always is.
        context: How many other features the context has.
        size: How large the tensors are.

    References:
        | Greedy Function Approximation: A Gradient Boosting Machine (Friedman, 2001)
        | Ensembles of Nested Dichotomies for Multi-Class Problems (Frank and Kramer, 2004)

    Example:
        >>> chain = BoostedChain([2], [None, 1], 0, ChainSize(cells=4, trees=0, nodes=0, splits=0))
        >>> c = torch.eye(2)  # of the second row the second number is there, too
        >>> chain(c).log_prob(torch.zeros(2, 2))
        tensor([-0.9189, -1.8379])
    """

    is_rowwise = True

    order: Tensor
    cells: Tensor
    cuts: Tensor
    baseline: Tensor
    share: Tensor
    starts: Tensor
    roots: Tensor
    nodes: Tensor
    branches: Tensor
    numbers: Tensor
    splits: Tensor

    def __init__(
        self,
        levels: Sequence[int],
        present: Sequence[int | None],
        context: int,
        size: ChainSize,
    ) -> None:
        super().__init__()
        self.levels, self.present, self.context = tuple(levels), tuple(present), context
        self.size = size
        features, depth = len(present), _halvings(size.cells)
        whole = torch.int64
        self.register_buffer("order", torch.arange(features))
        self.register_buffer("cells", torch.ones(features, dtype=whole))
        for name, shape in (
            ("cuts", (features, size.cells - 1)),
            ("baseline", (features, depth)),
            ("share", (features, depth)),
            ("numbers", (size.nodes,)),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("starts", torch.zeros(features * depth + 1, dtype=whole))
        self.register_buffer("roots", torch.zeros(size.trees, dtype=whole))
        self.register_buffer("nodes", torch.full((size.nodes,), -1, dtype=torch.int32))
        self.register_buffer("branches", torch.zeros(size.nodes, 3, dtype=torch.int16))
        self.register_buffer("splits", torch.zeros(size.splits, 4, dtype=whole))

    def extra_repr(self) -> str:
        return f"features={len(self.present)}, {self.size}"

    def forward(self, c: Tensor | None = None) -> BoostedChainDistribution:
        """Makes the chain for the context `c`, with shape (*, context), or none."""
        wanted = sum(self.levels) + self.context
        if (0 if c is None else c.shape[-1]) != wanted:
            found = "none" if c is None else f"{c.shape[-1]}"
            raise ValueError(f"c: expected {wanted} features, got {found}")
        return BoostedChainDistribution(self, c)

    def trees(self, position: int) -> tuple[Any, ...]:
        """What the compiled functions are told of the cells and trees of a number in the order."""
        depth = self.baseline.shape[1]
        cuts = self.cuts[position, : int(self.cells[position]) - 1].double().numpy()
        categorical = np.zeros(width(self.levels, self.context, len(self.present)), np.bool_)
        categorical[: len(self.levels)] = [levels <= CATEGORICAL for levels in self.levels]
        return (
            np.concatenate([[-math.inf], cuts, [math.inf]]),
            self.baseline[position].double().numpy(),
            self.share[position].double().numpy(),
            self.starts[position * depth : (position + 1) * depth + 1].numpy(),
            self.roots.numpy(),
            self.nodes.numpy(),
            self.branches.numpy(),
            self.numbers.double().numpy(),
            self.splits.numpy(),
            categorical,
        )


class BoostedChainDistribution(Base):
    """The distribution that a :class:`BoostedChain` makes for a context, (*, context), or none."""

    def __init__(self, chain: BoostedChain, c: Tensor | None) -> None:
        self.chain, self.c = chain, c
        super().__init__(() if c is None else c.shape[:-1], (len(chain.present),))

    def __repr__(self) -> str:
        return f"BoostedChainDistribution(features={self.event_shape[0]})"

    @property
    def support(self) -> constraints.Constraint:
        """Where the density may be positive."""
        return constraints.real_vector

    def expand(self, batch_shape: Shape, _instance: Any = None) -> BoostedChainDistribution:
        c = None if self.c is None else self.c.expand(*batch_shape, -1)
        found = BoostedChainDistribution(self.chain, c)
        Base.__init__(found, batch_shape, self.event_shape)
        return found

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of points, (*, D), in nats; it has no gradient."""
        batch = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        rows = value.expand(*batch, -1).reshape(1, -1, value.shape[-1])
        return self._log_probs(rows, batch).reshape(batch).to(value)

    def log_probs_at(self, places: Tensor) -> Tensor:
        """The log-densities of places of rows, (places, n, D), given one context or n of them.

        A place of a row is in the same cells of the grids as the others: no tree tells them apart,
        so that each of them is asked only once.
        """
        return self._log_probs(places, places.shape[1:-1]).to(places)

    def residuals(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """The probabilities of less than each number of rows, (n, D), given those before it.

        Nothing is drawn, so u does not count.
        """
        features, observed = self._features(z, z.shape[:-1])
        found = torch.zeros(z.shape, dtype=torch.float64)
        for position, d in enumerate(self.chain.order.tolist()):
            edges, *trees = self.chain.trees(position)
            value, there = z[:, d].detach().double().numpy(), observed[:, d].numpy()
            cells, width, below = kernel.locate(value[None], there, features, edges, *trees)
            made = kernel.distribution(value, cells[0], width[0], below[0], edges)
            found[:, d] = torch.from_numpy(made)
        return found.to(z)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws points, with shape (*sample_shape, *batch_shape, D), absent numbers at 0."""
        shape = torch.Size((*sample_shape, *self.batch_shape))
        count = self.event_shape[0]
        z = torch.zeros(shape.numel(), count, dtype=torch.float64)
        features, observed = self._features(z, shape)
        u = torch.rand(z.shape, dtype=torch.float64, generator=generator)
        first = features.shape[1] - 1 - count
        for position, d in enumerate(self.chain.order.tolist()):
            edges, *trees = self.chain.trees(position)
            cells, rest = kernel.draw(u[:, d].numpy(), features, edges, *trees)
            low, high = torch.from_numpy(edges[cells]), torch.from_numpy(edges[cells + 1])
            drawn = _inside(low, high, torch.from_numpy(rest))
            z[:, d] = torch.where(observed[:, d], drawn, 0)
            features[:, first + d] = torch.where(observed[:, d], drawn, math.nan).numpy()
        like = self.chain.cuts if self.c is None else self.c
        return z.reshape(*shape, count).to(like)

    def _log_probs(self, z: Tensor, batch: torch.Size) -> Tensor:
        features, observed = self._features(z[0], batch)
        total = torch.zeros(z.shape[:2], dtype=torch.float64)
        z = z.detach().double()
        for position, d in enumerate(self.chain.order.tolist()):
            edges, *trees = self.chain.trees(position)
            value, there = z[..., d].contiguous().numpy(), observed[:, d].numpy()
            cells, width, _ = kernel.locate(value, there, features, edges, *trees)
            terms = torch.from_numpy(kernel.log_densities(value, cells, width, edges))
            total = total + torch.where(observed[:, d], terms, 0)
        return total

    def _features(self, z: Tensor, batch: torch.Size) -> tuple[Any, Tensor]:
        """What trees are told of rows, (n, F), and which of the numbers are observed, (n, D)."""
        chain = self.chain
        c = None if self.c is None else self.c.expand(*batch, -1).reshape(len(z), -1)
        found = observed_features(chain.present, c)
        observed = torch.ones(z.shape, dtype=torch.bool) if found is None else found
        z = torch.where(observed, z.detach().double(), math.nan)
        return features_of(z, c, chain.levels), observed


def _inside(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    """The number of N(0, 1) in each interval below which there is such a share of the interval."""
    # On the lower side, where probabilities have all their digits.
    turned = low > 0
    a, b = torch.where(turned, -high, low), torch.where(turned, -low, high)
    share = torch.where(turned, 1 - share, share)
    bottom, top = torch.special.ndtr(a), torch.special.ndtr(b)
    place = torch.special.ndtri((bottom + share * (top - bottom)).clamp(min=1e-300, max=1 - 1e-16))
    place = torch.where(turned, -place, place)
    return place.clamp(low, torch.nextafter(high, low))


def width(levels: Sequence[int], context: int, count: int) -> int:
    """The features of trees: codes, the rest of the context, numbers, and the lowest cell."""
    return len(levels) + context + count + 1


def _halvings(cells: int) -> int:
    return (cells - 1).bit_length()


def features_of(z: Tensor, c: Tensor | None, levels: Sequence[int]) -> Any:
    """What trees are told of rows, whose absent numbers are NaN."""
    starts = [0, *accumulate(levels)]
    given = z.new_zeros(len(z), 0) if c is None else c.detach().double()
    codes = [given[:, first:end].argmax(dim=1, keepdim=True) for first, end in pairwise(starts)]
    return torch.cat([*codes, given[:, starts[-1] :], z, z.new_zeros(len(z), 1)], dim=1).numpy()
