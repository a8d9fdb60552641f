"""Mixtures of Gaussians, with draws that have gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from maskedflow.transforms import MonotonicMixtureTransform
from maskedflow.transforms.linear import solve_triangular

from .base import Shape
from .elementwise import DiagNormal
from .mixtures import Mixture


class FullNormal(MultivariateNormal):
    """torch's normal distribution with correlations, whose draws may come from a generator."""

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

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws rows, each from a component that is drawn first."""
        with torch.no_grad():
            chosen = self._choose(sample_shape, generator)
            shape, loc = (*chosen.shape, *self.event_shape), self.base.loc
            x = torch.randn(shape, dtype=loc.dtype, device=loc.device, generator=generator)
            for k in range(self.logits.shape[-1]):
                here = chosen == k
                if self.batch_shape:
                    x = torch.where(here[..., None], self._component(k, x), x)
                else:
                    x[here] = self._component(k, x[here])
            return x

    def _component(self, k: int, noise: Tensor) -> Tensor:
        """Draws of one component, from standard normal ones."""
        loc: Tensor = self.base.loc[..., k, :]
        if isinstance(self.base, DiagNormal):
            return loc + self.base.scale[..., k, :] * noise
        return loc + torch.einsum("...ij,...j->...i", self.base.scale_tril[..., k, :, :], noise)

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
        z: Tensor = MonotonicMixtureTransform(logits, means, -2 * log_scale.mT)(x)
        return z
