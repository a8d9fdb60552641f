"""Mixtures of Gaussians whose weights and means may follow a context."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

from maskedflow.distributions import Density
from maskedflow.distributions.base import Base, Shape
from maskedflow.flows import LazyDistribution
from maskedflow.flows.flow import check_context
from maskedflow.kernels.gaussians import (
    invert,
    log_densities,
    marginal_factors,
    place,
    residuals,
)
from maskedflow.staircase import is_traced

from .missing import observed_features

_Array = NDArray[Any]


class MixtureOfRegressions(LazyDistribution):
    r"""A lazy mixture of Gaussians, whose weights and means may follow the context.

    .. math:: p(x \mid c) = \sum_{k=1}^K w_k(c) \, \mathcal{N}(x \mid \mu_k + B_k c, L_k L_k^T),
        \qquad w_k(c) \propto w_k \, e^{g_k \cdot c}

    If the context begins with codes as one-hot vectors, and :math:`g_k` are the logarithms of their
    frequencies in each component, that is a mixture of components of codes and numbers,
    independent within each, given the codes. Features may be absent, as the context says; it is the
    marginal of the others then, and absent ones are drawn as 0.

    A density costs :math:`O(K D (D + C))`, a sample :math:`O(D (D + C) + K)`, and each pattern of
    absent features :math:`O(K D^3)`. A row's density has no other rows in it.

    Args:
        logits: The unnormalised log-weights, (K,). This and the others are buffers: they are fitted
            already.
        loc: The means, (K, D).
        scale_tril: The Cholesky factors, (K, D, D).
        slopes: The slopes :math:`B_k` of the means, (K, D, C); None if they do not follow c.
        tables: The slopes :math:`g_k` of the log-weights, (K, J), of the first J dimensions of the
            context; None if they do not follow c.
        present: For each feature the dimension of the context that is 1 if it is observed and 0 if
            not; None if it always is. No feature is ever absent by default.

    References:
        | Hierarchical Mixtures of Experts and the EM Algorithm (Jordan and Jacobs, 1994)
        | Statistical Analysis with Missing Data (Little and Rubin, 2019), section 14.2, for
            codes and values in one mixture

    Example:
        >>> logits, loc, eye = torch.zeros(2), torch.tensor([[-9.0], [9.0]]), torch.ones(2, 1, 1)
        >>> tables = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> mixture = MixtureOfRegressions(logits, loc, eye, tables=tables)
        >>> mixture(torch.eye(2)).log_prob(torch.tensor([[-9.0], [-9.0]])).exp()
        tensor([0.3590, 0.0399])
    """

    is_rowwise = True

    logits: Tensor
    loc: Tensor
    scale_tril: Tensor
    slopes: Tensor | None
    tables: Tensor | None

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale_tril: Tensor,
        slopes: Tensor | None = None,
        tables: Tensor | None = None,
        present: Sequence[int | None] = (),
    ) -> None:
        super().__init__()
        self.register_buffer("logits", logits)
        self.register_buffer("loc", loc)
        self.register_buffer("scale_tril", scale_tril)
        self.register_buffer("slopes", slopes)
        self.register_buffer("tables", tables)
        self.present = tuple(present)

    @property
    def context(self) -> int:
        """How many dimensions of the context are looked at."""
        sizes = [0 if part is None else part.shape[-1] for part in (self.slopes, self.tables)]
        return max(*sizes, *(column + 1 for column in self.present if column is not None))

    def extra_repr(self) -> str:
        components, features = self.loc.shape
        return f"components={components}, features={features}, context={self.context}"

    def forward(self, c: Tensor | None = None) -> MixtureOfRegressionsDistribution:
        """Makes the mixture for the context `c`, with shape (*, C), or none."""
        if not self.context:
            return MixtureOfRegressionsDistribution(self, None)
        if c is not None and self.slopes is None:
            c = c[..., : self.context]
        check_context(c, self.context)
        return MixtureOfRegressionsDistribution(self, c)


class MixtureOfRegressionsDistribution(Density):
    """The distribution that a :class:`MixtureOfRegressions` makes for a context, (*, C)."""

    def __init__(self, mixture: MixtureOfRegressions, c: Tensor | None) -> None:
        self.mixture, self.c = mixture, c
        self.observed = observed_features(mixture.present, c)
        super().__init__(() if c is None else c.shape[:-1], mixture.loc.shape[-1:])

    def __repr__(self) -> str:
        return f"MixtureOfRegressionsDistribution({self.mixture.extra_repr()})"

    def expand(self, batch_shape: Shape, _instance: Any = None) -> MixtureOfRegressionsDistribution:
        new = copy.copy(self)
        if self.c is not None:
            new.c = self.c.expand(*batch_shape, -1)
            new.observed = observed_features(self.mixture.present, new.c)
        Base.__init__(new, batch_shape, self.event_shape)
        return new

    def density(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        tensors = (value, self.c, *self.mixture.buffers())
        learns = any(one is not None and one.requires_grad for one in tensors)
        if is_traced() or (torch.is_grad_enabled() and learns):
            return self._differentiable(value, shape)
        x = _array(value.expand(*shape, -1).reshape(-1, value.shape[-1]))
        found = np.zeros(len(x))
        for part in self._parts(shape):
            found[part.rows] = log_densities(*part.arguments(x))[0]
        return torch.from_numpy(found).reshape(shape).to(value)

    def _differentiable(self, value: Tensor, shape: torch.Size) -> Tensor:
        mixture, c = self.mixture, self.c
        centred = value.expand(*shape, -1)[..., None, :] - mixture.loc
        weights = mixture.logits
        if mixture.slopes is not None and c is not None:
            centred = centred - torch.einsum("kdc,...c->...kd", mixture.slopes, c)
        if mixture.tables is not None and c is not None:
            weights = weights + c[..., : mixture.tables.shape[1]] @ mixture.tables.mT
        factors, features = mixture.scale_tril, centred.shape[-1]
        whole = torch.full((), float(features)).to(value)
        if self.observed is not None:
            # An absent feature is an independent one at its mean, of variance 1.
            here = self.observed[..., None, :].to(value)
            centred, whole = centred * here, self.observed.sum(dim=-1)[..., None]
            covariance = (factors @ factors.mT) * here[..., None] * here[..., None, :]
            factors = torch.linalg.cholesky(covariance + torch.diag_embed(1 - here))
        z = torch.linalg.solve_triangular(factors, centred[..., None], upper=False)[..., 0]
        constant = factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        each = -0.5 * (z.square().sum(dim=-1) + whole * math.log(2 * math.pi)) - constant
        return torch.logsumexp(weights.log_softmax(dim=-1) + each, dim=-1)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws rows, each from a component that is drawn first; absent features are 0."""
        shape = torch.Size((*sample_shape, *self.batch_shape))
        mixture, c = self.mixture, self._context(shape)
        weights, like = mixture.logits, mixture.loc
        if mixture.tables is not None:
            given = torch.from_numpy(c[:, : mixture.tables.shape[1]]).to(like)
            weights = weights + given @ mixture.tables.mT
        waiting = torch.empty(len(c), len(like), dtype=like.dtype, device=like.device)
        waiting.exponential_(generator=generator)
        chosen = (waiting.log() - weights).argmin(dim=-1).cpu().numpy()
        noise = torch.randn(
            len(c), like.shape[1], dtype=like.dtype, device=like.device, generator=generator
        )
        slopes = _slopes(mixture)
        arrays = _array(like), _array(mixture.scale_tril), slopes
        x = torch.from_numpy(place(_array(noise), c, chosen, *arrays)).to(like)
        x = x.reshape(*shape, like.shape[1])
        return x if self.observed is None else torch.where(self.observed, x, 0)

    @torch.no_grad()
    def residuals(self, z: Tensor, u: Tensor) -> Tensor:
        """PIT residuals of rows, (n, D): of the component that u, (n,), draws given the row.

        Each is the probability of less than a feature in its component, given those before it: they
        are independent, and uniform if the density is right. Those of absent features are 1/2.
        """
        x, threshold, found = _array(z), _array(u), np.full(tuple(z.shape), 0.5)
        for part in self._parts(z.shape[:1]):
            given = part.arguments(x)
            log_probs, each = log_densities(*given)
            up_to = np.exp(each - log_probs[:, None]).cumsum(axis=1)
            chosen = (up_to < threshold[part.rows][:, None]).sum(axis=1)
            chosen = chosen.clip(max=each.shape[1] - 1)
            v = residuals(*given[:2], chosen, *given[4:])
            ends = torch.special.ndtr(torch.from_numpy(v)).numpy()
            found[np.ix_(part.rows, part.here)] = ends
        return torch.from_numpy(found).to(z)

    def _context(self, shape: torch.Size) -> _Array:
        """The context of each row of a batch."""
        if self.c is None:
            return np.zeros((shape.numel(), 0))
        return _array(self.c.expand(*shape, -1).reshape(shape.numel(), -1))

    def _parts(self, shape: torch.Size) -> Iterator[_Part]:
        """The rows of a batch, sorted by what is observed of them."""
        c, rows = self._context(shape), np.arange(shape.numel())
        if self.observed is None:
            yield _Part(self.mixture, c, rows, np.ones(self.event_shape, dtype=bool))
            return
        observed = self.observed.expand(*shape, -1).reshape(len(rows), -1).cpu().numpy()
        kinds, which = np.unique(observed, axis=0, return_inverse=True)
        for number, kind in enumerate(kinds):
            if kind.any():  # of a row of which nothing is known the log-density is 0
                yield _Part(self.mixture, c, np.flatnonzero(which.reshape(-1) == number), kind)


class _Part:
    """The rows of which the same features are observed, with the mixture's marginal."""

    def __init__(
        self, mixture: MixtureOfRegressions, c: _Array, rows: _Array, kind: _Array
    ) -> None:
        self.rows, self.here = rows, np.flatnonzero(kind)
        self.c = np.ascontiguousarray(c[rows])
        loc, factors, slopes = marginal(
            _array(mixture.loc), _array(mixture.scale_tril), _slopes(mixture), self.here
        )
        logits = _array(mixture.logits)
        tables = mixture.tables
        gates = np.zeros((0, len(logits))) if tables is None else _array(tables.mT)
        self.mixture = logits, gates, loc, invert(factors), slopes

    def arguments(self, x: _Array) -> tuple[_Array, ...]:
        """What the compiled functions take."""
        return np.ascontiguousarray(x[np.ix_(self.rows, self.here)]), self.c, *self.mixture


def marginal(
    loc: _Array, factors: _Array, slopes: _Array, here: _Array
) -> tuple[_Array, _Array, _Array]:
    """The means, factors and slopes of some features."""
    if len(here) == loc.shape[1]:
        return loc, factors, slopes
    return (
        np.ascontiguousarray(loc[:, here]),
        marginal_factors(factors, here),
        np.ascontiguousarray(slopes[:, here]),
    )


def _array(value: Tensor) -> _Array:
    return np.ascontiguousarray(value.detach().double().cpu().numpy())


def _slopes(mixture: MixtureOfRegressions) -> _Array:
    if mixture.slopes is None:
        return np.zeros((*mixture.loc.shape, 0))
    return _array(mixture.slopes)


def clusters(x: Tensor, count: int, seed: int, weight: Tensor | None = None) -> Tensor:
    """Ones where rows, (n, D), are in clusters by k-means, (n, count)."""
    counts = None if weight is None else weight.numpy()
    with threadpool_limits(1), warnings.catch_warnings():  # other threads would sum otherwise
        warnings.simplefilter("ignore", ConvergenceWarning)
        means = KMeans(count, n_init=1, random_state=seed)
        labels = means.fit(x.numpy(), sample_weight=counts).labels_
    return torch.nn.functional.one_hot(torch.from_numpy(labels).long(), count).double()
