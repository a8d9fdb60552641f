"""Which columns come first in a density: those whose marginal it knows exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal
from torch.distributions.transforms import IndependentTransform
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.distributions import DiagNormal, Joint, MixtureOfGaussians, NormalizingFlow
from maskedflow.distributions.base import log_density, unvalidated
from maskedflow.distributions.mixtures import FullNormal
from maskedflow.flows import (
    ElementWiseTransform,
    Flow,
    MaskedAutoregressiveTransform,
    UnconditionalDistribution,
)
from maskedflow.flows.flow import unchecked
from maskedflow.tables.missing import call_elements, elements_of, steps_of
from maskedflow.training.evaluation import frozen
from maskedflow.transforms import DependentTransform, Narrow, ScaleTransform

from .faces import by_seed
from .named import NamedDensity

TOLERANCE = 1e-3
"""Nats by which the sum of the parts may differ from the whole, relative to it, by rounding."""


class Tail(Protocol):
    """The distribution of the latents of a flow, or one of rows by itself."""

    def log_marginal(self, z: Tensor, index: Tensor) -> Tensor:
        """The log-density of some columns of z, shape (n,)."""

    def complete(self, z: Tensor, index: Tensor, n: int, seed: int) -> Tensor:
        """Draws n rows given some columns of z, shape (1, D)."""


@dataclass(frozen=True, eq=False)
class Order:
    r"""A density as a chain of maps whose columns come in an order, and a tail.

    If the first columns :math:`x_S` of all maps are mapped without a look at the others, and the
    tail has marginals,

    .. math:: \log p(x_S) = \log p_Z(z_S) + \sum_{i \in S} \log \left| \frac{\partial z_i}
        {\partial x_i} \right|

    Args:
        layers: The maps, each one of its elements given those of an earlier generation.
        generations: The generation of each column, one tensor for each autoregressive map.
        tail: The distribution of the latents.
        module: What is to be in evaluation mode.
        example: A row that can be, which stands in for columns that do not matter.
    """

    layers: tuple[TorchTransform, ...]
    generations: tuple[Tensor, ...]
    tail: Tail
    module: nn.Module
    example: Tensor

    @classmethod
    def of(cls, density: NamedDensity) -> Order | None:
        """The order of a density; None if it has none that is known."""
        if density.origin is None:
            return None
        thing, c = density.origin
        if isinstance(thing, NormalizingFlow) and thing.origin is not None:
            origin = thing.origin
            if origin.make is not unchecked:
                return None
            thing, c = origin.module, next(iter(origin.inputs), None)
        module = thing if isinstance(thing, nn.Module) else nn.Identity()
        with frozen(module):
            parts = _parts(thing, c)
            if parts is None:
                return None
            x = density.sample(8, seed=0)
            found = cls(*parts, module, x[:1])
            # Subclasses may do more than their parts say.
            whole, of_parts = density.log_prob(x), found.log_marginal(x, torch.arange(x.shape[1]))
        return found if torch.allclose(whole, of_parts, TOLERANCE, TOLERANCE) else None

    def leads(self, index: Tensor) -> bool:
        """Whether some columns come first: none of them depends on another one."""
        first = torch.zeros(self.example.shape[1], dtype=torch.bool)
        first[index] = True
        return all(
            bool(first.all() or ranks[first].max() <= ranks[~first].min())
            for ranks in self.generations
        )

    def log_marginal(self, x: Tensor, index: Tensor) -> Tensor:
        """The log-density of columns that come first, of whole rows, shape (n,), in nats."""
        with frozen(self.module), torch.set_grad_enabled(x.requires_grad):
            z, total = self._latents(x, index)
            return total + self.tail.log_marginal(z, index).double()

    def complete(self, x: Tensor, index: Tensor, n: int, seed: int) -> Tensor:
        """Draws n rows given the columns that come first of x, shape (1, D)."""
        with frozen(self.module):
            z = self.tail.complete(self._latents(x, index)[0], index, n, seed)
            for layer in reversed(self.layers):
                z = layer.inv(z)
            z[:, index] = x[:, index].to(z)
            return z

    def _latents(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        x = x.to(self.example)
        total = x.new_zeros(len(x), dtype=torch.float64)
        for layer in self.layers:
            x, ladj = call_elements(layer, x)
            total = total + ladj[:, index].double().sum(dim=1)
        return x, total


def _parts(
    thing: Any, c: Tensor | None
) -> tuple[tuple[TorchTransform, ...], tuple[Tensor, ...], Tail] | None:
    """The maps, generations and tail of a flow or a distribution; None if one is not known."""
    layers: list[TorchTransform] = []
    generations: list[Tensor] = []
    while isinstance(thing, Flow):
        c = c if c is None or thing.embedding is None else thing.embedding(c)
        for lazy in steps_of(thing.transform):
            for made in steps_of(lazy(c)):
                layer = _elementwise(lazy, made)
                if layer is None:
                    return None
                layers.append(layer)
            if isinstance(lazy, MaskedAutoregressiveTransform):
                generations.append(lazy.generation)
        thing = thing.base
        if isinstance(thing, UnconditionalDistribution) and isinstance(thing.f, nn.Module):
            thing, c = thing.f, None
    tail = _tail(thing(c) if isinstance(thing, nn.Module) else thing)
    return None if tail is None else (tuple(layers), tuple(generations), tail)


def _elementwise(lazy: nn.Module, made: TorchTransform) -> TorchTransform | None:
    """The map, if it is one of each column by itself, or given earlier ones."""
    if isinstance(lazy, MaskedAutoregressiveTransform | ElementWiseTransform | Narrow):
        return made
    if isinstance(made, IndependentTransform):
        made = DependentTransform(made.base_transform, made.reinterpreted_batch_ndims)
    if isinstance(made, DependentTransform):
        single = made.base.domain.event_dim == 0 and made.reinterpreted == 1
        return made if single else None
    return made if isinstance(made, ScaleTransform) or made.domain.event_dim == 0 else None


def _tail(distribution: Distribution) -> Tail | None:
    if isinstance(distribution, MultivariateNormal):
        loc, factor = distribution.loc.double(), distribution.scale_tril.double()
        return _Gaussians(loc.new_zeros(1), loc[None], (factor @ factor.mT)[None])
    if isinstance(distribution, MixtureOfGaussians):
        base, logits = distribution.base, distribution.logits
        if isinstance(base, DiagNormal):
            return _Gaussians(logits, base.loc, base.scale.double().square().diag_embed())
        factor = base.scale_tril.double()
        return _Gaussians(logits, base.loc, factor @ factor.mT)
    elements = elements_of(distribution)
    if elements is None and isinstance(distribution, Independent):
        elements = distribution.base_dist
        if elements.event_shape or distribution.reinterpreted_batch_ndims != 1:
            return None
    if elements is not None:
        return _Independent(distribution, [elements])
    if isinstance(distribution, Joint) and set(distribution.sizes) == {1}:
        return _Independent(distribution, distribution.marginals)
    return None


class _Independent:
    """Columns that are independent: one distribution of all of them as a batch, or each its own."""

    def __init__(self, whole: Distribution, parts: list[Distribution]) -> None:
        self.whole, self.parts = whole, [unvalidated(part) for part in parts]

    def log_marginal(self, z: Tensor, index: Tensor) -> Tensor:
        if len(self.parts) == 1:
            return log_density(self.parts[0], z)[:, index].sum(dim=1)
        each = []
        for i in index.tolist():
            part = self.parts[i]
            each.append(log_density(part, z[:, i].reshape(-1, *part.event_shape)))
        return torch.stack(each).sum(dim=0)

    def complete(self, z: Tensor, index: Tensor, n: int, seed: int) -> Tensor:
        drawn = by_seed(self.whole.sample)(n, seed)
        drawn[:, index] = z[:, index]
        return drawn


class _Gaussians:
    """A mixture of Gaussians with full covariances, whose marginals and conditionals are alike."""

    def __init__(self, logits: Tensor, loc: Tensor, covariance: Tensor) -> None:
        self.logits, self.loc = logits.double(), loc.double()
        self.covariance = covariance.double()

    def _marginals(self, index: Tensor) -> FullNormal:
        """Some columns of each component."""
        block = self.covariance[:, index][:, :, index]
        return FullNormal(self.loc[:, index], block, validate_args=False)

    def log_marginal(self, z: Tensor, index: Tensor) -> Tensor:
        each = log_density(self._marginals(index), z[:, None, index].double())
        return torch.logsumexp(self.logits.log_softmax(dim=0) + each, dim=1)

    def complete(self, z: Tensor, index: Tensor, n: int, seed: int) -> Tensor:
        rest = torch.ones(z.shape[1], dtype=torch.bool)
        rest[index] = False
        rest_index, given = rest.nonzero().flatten(), z[:, index].double()
        logits = self.logits + log_density(self._marginals(index), given)
        across = self.covariance[:, rest_index][:, :, index]
        slope = torch.linalg.solve(self.covariance[:, index][:, :, index], across.mT).mT
        loc = self.loc[:, rest_index] + (slope @ (given - self.loc[:, index])[..., None])[..., 0]
        covariance = self.covariance[:, rest_index][:, :, rest_index] - slope @ across.mT
        mixture = MixtureOfGaussians(logits, loc, scale_tril=torch.linalg.cholesky(covariance))
        drawn = z.repeat(n, 1)
        drawn[:, rest_index] = by_seed(mixture.sample)(n, seed).to(z)
        return drawn
