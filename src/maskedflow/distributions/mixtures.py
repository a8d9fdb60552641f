"""Distributions made of others: mixtures, Gaussian ones among them, and one beside the other."""

from __future__ import annotations

import copy
from textwrap import indent
from typing import Any

import numpy as np
import torch
from torch import Size, Tensor
from torch.distributions import Distribution, MultivariateNormal

from maskedflow.kernels.gaussians import invert, log_densities
from maskedflow.staircase import is_traced
from maskedflow.transforms import MonotonicMixtureTransform
from maskedflow.transforms.base import check_features
from maskedflow.transforms.linear import solve_triangular

from .base import Base, Shape, draw, log_density, unvalidated
from .density import Density
from .elementwise import DiagNormal


class Mixture(Density):
    r"""A mixture of distributions.

    .. math:: \log p(x) = \log \sum_k w_k \, p_k(x)

    Its draws have no gradients.

    Args:
        base: The distributions :math:`p_k`, the last dimension of whose batch is the components'.
        logits: The unnormalised log-weights :math:`\log w_k`, with shape (*, K).

    Raises:
        ValueError: If the components of `base` and `logits` differ.

    Example:
        >>> from torch.distributions import Normal
        >>> d = Mixture(Normal(torch.tensor([-1.0, 1.0]), torch.ones(2)), torch.zeros(2))
        >>> d.log_prob(torch.tensor(0.0))
        tensor(-1.4189)
    """

    def __init__(self, base: Distribution, logits: Tensor) -> None:
        if base.batch_shape[-1:] != logits.shape[-1:] or not logits.ndim:
            raise ValueError(
                f"logits: expected shape (*, K) with the K of the base's batch shape "
                f"{tuple(base.batch_shape)}, got {tuple(logits.shape)}"
            )
        shape = torch.broadcast_shapes(base.batch_shape, logits.shape)
        self.base = unvalidated(base)
        if shape != base.batch_shape:
            self.base = self.base.expand(shape)
        self.logits = logits
        super().__init__(shape[:-1], base.event_shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base})"

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Mixture:
        new = copy.copy(self)
        new.base = self.base.expand(Size((*batch_shape, self.logits.shape[-1])))
        Base.__init__(new, batch_shape, self.event_shape)
        return new

    def density(self, value: Tensor) -> Tensor:
        each = log_density(self.base, value.unsqueeze(-1 - len(self.event_shape)))
        return torch.logsumexp(self.logits.log_softmax(dim=-1) + each, dim=-1)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            x = draw(self.base, sample_shape, generator)
            return _picked(x, self._choose(sample_shape, generator), len(self.event_shape))

    def _choose(self, sample_shape: Shape, generator: torch.Generator | None) -> Tensor:
        """Draws components: the first arrival of Poisson processes with rates as the weights."""
        shape = (*sample_shape, *self.batch_shape, self.logits.shape[-1])
        waiting = torch.empty(shape, dtype=self.logits.dtype, device=self.logits.device)
        waiting.exponential_(generator=generator)
        return (waiting.log() - self.logits).argmin(dim=-1)


class FullNormal(MultivariateNormal):
    """torch's normal distribution with correlations, whose draws may come from a generator."""

    def log_prob(self, value: Tensor) -> Tensor:
        if 0 in self.batch_shape:  # by whose sizes torch divides
            return (value - self.loc).sum(dim=-1)
        log_prob: Tensor = super().log_prob(value)  # type: ignore[no-untyped-call]
        return log_prob

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        loc: Tensor = self.loc
        noise = torch.randn(shape, dtype=loc.dtype, device=loc.device, generator=generator)
        # No copy of the factor for each draw, as a product with vectors would make.
        return loc + torch.einsum("...ij,...j->...i", self.scale_tril, noise)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape, generator)


class MixtureOfGaussians(Mixture):
    r"""A mixture of normal distributions, of independent features or with correlations.

    .. math:: \log p(x) = \log \sum_k w_k \, \mathcal{N}(x \mid \mu_k, L_k L_k^T)

    Unlike other mixtures' its draws have gradients. A feature given those before it is a mixture
    of K Gaussians again, so that x becomes N(0, I) by an autoregressive map (the one of
    :class:`~maskedflow.transforms.MonotonicMixtureTransform`), and the implicit function theorem
    tells how x moves with the parameters. The gradients of D features cost D backward passes.

    Args:
        logits: The unnormalised log-weights :math:`\log w_k`, with shape (*, K).
        loc: The means :math:`\mu_k`, with shape (*, K, D).
        scale: The standard deviations of independent features, with shape (*, K, D).
        scale_tril: Or the lower triangular factors :math:`L_k`, with shape (*, K, D, D).

    Raises:
        ValueError: If there are not either scales or factors, or shapes do not fit.

    References:
        | Implicit Reparameterization Gradients (Figurnov et al., 2018)
        | https://arxiv.org/abs/1805.08498

    Example:
        >>> d = MixtureOfGaussians(torch.zeros(2), torch.zeros(2, 3), torch.ones(2, 3))
        >>> d.log_prob(torch.zeros(3))
        tensor(-2.7568)
        >>> d.sample((5,)).shape
        torch.Size([5, 3])
    """

    has_rsample = True
    base: DiagNormal | FullNormal

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor | None = None,
        scale_tril: Tensor | None = None,
    ) -> None:
        if scale is not None and scale_tril is None:
            super().__init__(DiagNormal(loc, scale), logits)
        elif scale_tril is not None and scale is None:
            super().__init__(FullNormal(loc, scale_tril=scale_tril, validate_args=False), logits)
        else:
            raise ValueError("scale, scale_tril: expected one of them")

    @property
    def mean(self) -> Tensor:
        weights = self.logits.softmax(dim=-1)[..., None]
        return (weights * self.base.mean).sum(dim=-2)

    @property
    def variance(self) -> Tensor:
        """The variances of the features, within components and between them."""
        weights = self.logits.softmax(dim=-1)[..., None]
        between = (self.base.mean - self.mean[..., None, :]).square()
        return (weights * (self.base.variance + between)).sum(dim=-2)

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        x = self.sample(sample_shape, generator)
        spread = self.base.scale if isinstance(self.base, DiagNormal) else self.base.scale_tril
        parameters = (self.logits, self.base.loc, spread)
        if not torch.is_grad_enabled() or not any(one.requires_grad for one in parameters):
            return x
        residual = self._normalise(x)
        with torch.enable_grad():
            at = x.clone().requires_grad_()
            z = self._normalise(at)
            rows = [
                torch.autograd.grad(z[..., i].sum(), at, retain_graph=True)[0]
                for i in range(z.shape[-1])
            ]
        slopes = torch.stack(rows, dim=-2)
        return x - solve_triangular(slopes, residual - residual.detach(), upper=False)

    def density(self, value: Tensor) -> Tensor:
        if isinstance(self.base, DiagNormal) or self.batch_shape:
            return super().density(value)
        tensors = value, self.logits, self.base.loc, self.base.scale_tril
        learns = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
        if not learns and not is_traced() and all(one.device.type == "cpu" for one in tensors):
            return self._compiled(*tensors)
        # Component by component: all at once would be that many copies of all rows.
        parts = (log_density(self._component(k), value) for k in range(len(self.logits)))
        return torch.logsumexp(self.logits.log_softmax(dim=-1) + torch.stack([*parts], -1), dim=-1)

    def _component(self, k: int) -> FullNormal:
        """One component, where there is no batch."""
        loc, factor = self.base.loc[k], self.base.scale_tril[k]  # type: ignore[union-attr]
        return FullNormal(loc, scale_tril=factor, validate_args=False)

    def _compiled(self, value: Tensor, *parameters: Tensor) -> Tensor:
        """The density in double precision, without gradients, of each row by itself."""
        features = value.shape[-1]
        rows = value.reshape(-1, features)
        x, logits, loc, factors = (
            np.ascontiguousarray(one.detach().double().numpy()) for one in (rows, *parameters)
        )
        nothing, components = np.zeros((len(x), 0)), len(loc)
        gates, slopes = np.zeros((0, components)), np.zeros((components, features, 0))
        found = log_densities(x, nothing, logits, gates, loc, invert(factors), slopes)[0]
        return torch.from_numpy(found).reshape(value.shape[:-1]).to(parameters[-1])

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws rows, each from a component that is drawn first."""
        with torch.no_grad():
            chosen = self._choose(sample_shape, generator)
            shape, loc = (*chosen.shape, *self.event_shape), self.base.loc
            x = torch.randn(shape, dtype=loc.dtype, device=loc.device, generator=generator)
            spread = self.base.scale if isinstance(self.base, DiagNormal) else self.base.scale_tril
            if self.batch_shape:
                spread = _picked(spread, chosen, 1 if isinstance(self.base, DiagNormal) else 2)
                loc = _picked(loc, chosen, 1)
                return self._moved(x, loc, spread)
            for k in range(self.logits.shape[-1]):  # no copy of the factor for each draw
                here = chosen == k
                x[here] = self._moved(x[here], loc[k], spread[k])
            return x

    def _moved(self, noise: Tensor, loc: Tensor, spread: Tensor) -> Tensor:
        """Draws of components from standard normal ones."""
        if isinstance(self.base, DiagNormal):
            return loc + spread * noise
        return loc + torch.einsum("...ij,...j->...i", spread, noise)

    def _normalise(self, x: Tensor) -> Tensor:
        """Maps x to N(0, I), each feature given those before it."""
        centred = x[..., None, :] - self.base.loc
        if isinstance(self.base, DiagNormal):
            scale = self.base.scale
            v = centred / scale
        else:
            factors = self.base.scale_tril
            scale = factors.diagonal(dim1=-2, dim2=-1)
            v = solve_triangular(factors, centred, upper=False)
        log_scale = scale.log()
        evidence = -0.5 * v.square() - log_scale
        before = evidence.cumsum(dim=-1) - evidence
        logits = (self.logits.log_softmax(dim=-1)[..., None] + before).mT
        means = x[..., None] - (scale * v).mT
        slope = torch.finfo(x.dtype).tiny ** 0.5  # scales are as small and large as they are
        z: Tensor = MonotonicMixtureTransform(logits, means, -2 * log_scale.mT, slope)(x)
        return z


def _picked(value: Tensor, chosen: Tensor, events: int) -> Tensor:
    """The values of the components that are chosen, (*, *batch), of (*batch, K, *event)."""
    value = value.expand(*chosen.shape, *value.shape[-1 - events :])
    index = chosen.reshape(*chosen.shape, *[1] * (1 + events))
    index = index.expand(*chosen.shape, 1, *value.shape[value.ndim - events :])
    return value.gather(-1 - events, index).squeeze(-1 - events)


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
        check_features("x", value, sum(self.sizes))
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
