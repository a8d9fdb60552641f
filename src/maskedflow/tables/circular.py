"""The distribution of rows of angles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import vonmises
from torch import Tensor
from torch.distributions import constraints

from maskedflow.distributions import refuse_nan
from maskedflow.distributions.base import Base, Shape
from maskedflow.flows import LazyDistribution
from maskedflow.flows.flow import check_context
from maskedflow.nn import MaskedMLP
from maskedflow.transforms import check_features

from .missing import observed_features


class AutoregressiveVonMises(LazyDistribution):
    r"""A lazy distribution of rows of angles, each a mixture given those before it.

    .. math:: p(x_1, \dots, x_A \mid c) = \prod_i \sum_k w_{ik} \frac{
        e^{\kappa_{ik} \cos(x_i - \mu_{ik})}}{2 \pi I_0(\kappa_{ik})}, \quad
        (w_i, \mu_i, \kappa_i) = \phi_i(x_{<i}, c)

    One masked network makes the parameters of all angles from the cosines and sines of their
    predecessors, 0 of those that are absent, so that the density is smooth and periodic in each.
    It costs one pass, a sample A passes. An output is a vector v for each component, which points
    to :math:`\mu` and whose length gives :math:`\kappa = \sinh |v|`.

    What is absent has no density: `present` says for each angle which dimension of the context is 1
    if it is observed, else 0; None if it always is.

    References:
        | Mixture Density Networks (Bishop, 1994)
        | Statistics of Directional Data (Mardia, 1975)
    """

    most: Tensor

    def __init__(
        self,
        present: Sequence[int | None],
        context: int = 0,
        components: int = 8,
        hidden_features: Sequence[int] = (64, 64),
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if not present or components < 1:
            raise ValueError(
                f"present, components: expected at least one angle and one component, got "
                f"{len(present)} and {components}"
            )
        self.present, self.context, self.components = tuple(present), context, components
        angles = len(present)
        before = torch.ones(angles, angles, dtype=torch.bool).tril(-1)
        on_context = torch.ones(angles, context, dtype=torch.bool)
        self.hyper = MaskedMLP(
            torch.cat([before, before, on_context], dim=1).repeat_interleave(3 * components, dim=0),
            hidden_features,
            context=context,
            **kwargs,
        )
        self.register_buffer("most", torch.full((angles,), 20.0))

    def extra_repr(self) -> str:
        return f"angles={len(self.present)}, components={self.components}, context={self.context}"

    def forward(self, c: Tensor | None = None) -> AutoregressiveVonMisesDistribution:
        """Makes the distribution for the context `c`, with shape (*, context), or none."""
        check_context(c, self.context)
        if c is not None:
            refuse_nan("c", c)
        return AutoregressiveVonMisesDistribution(self, c)

    @torch.no_grad()
    def start_at(self, margins: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Starts at a mixture for each angle: weights, directions and concentrations."""
        starts = []
        for weights, mu, kappa in margins:
            which = torch.arange(self.components) % len(weights)
            copies = which.bincount(minlength=len(weights))
            r = kappa.asinh()
            each = [(weights / copies).log(), r * mu.cos(), r * mu.sin()]
            starts.append(torch.stack(each, dim=1)[which].flatten())
        cast(Tensor, self.hyper.layers[-1].bias).copy_(torch.cat(starts))


class AutoregressiveVonMisesDistribution(Base):
    """The distribution that an :class:`AutoregressiveVonMises` makes for a context."""

    def __init__(self, angles: AutoregressiveVonMises, c: Tensor | None = None) -> None:
        self.angles, self.c = angles, c
        self.observed = observed_features(angles.present, c)
        super().__init__(() if c is None else c.shape[:-1], (len(angles.present),))

    def __repr__(self) -> str:
        return f"AutoregressiveVonMisesDistribution({self.angles.extra_repr()})"

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors: an angle is the same after a full turn."""
        return constraints.real_vector

    def parameters(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each angle's log-weights, (*, A, K), (cos mu, sin mu), and concentrations, in float64."""
        weight = self.angles.hyper.layers[0].weight
        turn = torch.cat([x.cos(), x.sin()], dim=-1).to(cast(Tensor, weight))
        if self.observed is not None:
            turn = torch.where(torch.cat([self.observed, self.observed], dim=-1), turn, 0)
        phi = self.angles.hyper(turn, self.c).double()
        phi = phi.unflatten(-1, (len(self.angles.present), self.angles.components, 3))
        vector = phi[..., 1:]
        # A length of exactly zero would have no slope.
        length = (vector.square().sum(dim=-1) + 1e-24).sqrt()
        kappa = length.minimum(self.angles.most.double()[:, None]).sinh()
        return phi[..., 0].log_softmax(dim=-1), vector / length[..., None], kappa

    def log_probs(self, x: Tensor) -> Tensor:
        """The terms of the log-density, one an angle, in nats and float64; 0 of what is absent."""
        check_features("x", x, len(self.angles.present))
        refuse_nan("x", x)
        log_weights, unit, kappa = self.parameters(x)
        x = x.double()
        cosine = (torch.stack([x.cos(), x.sin()], dim=-1)[..., None, :] * unit).sum(dim=-1)
        scale = (2 * math.pi * torch.special.i0e(kappa)).log()
        terms = (log_weights + kappa * (cosine - 1) - scale).logsumexp(dim=-1)
        return terms if self.observed is None else torch.where(self.observed, terms, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of each row of radians, (*, A), in nats and float64, in one pass."""
        return self.log_probs(value).sum(dim=-1)

    @torch.no_grad()
    def cdf(self, x: Tensor) -> Tensor:
        """The probability of each angle to lie in [-pi, x), given those before it."""
        log_weights, unit, kappa = self.parameters(x)
        mu = torch.atan2(unit[..., 1], unit[..., 0])
        ends = (x.double()[..., None] - mu).numpy(), (-math.pi - mu).numpy()
        up, start = (torch.from_numpy(vonmises.cdf(end, kappa.numpy())) for end in ends)
        return (log_weights.exp() * (up - start)).sum(dim=-1).clamp(0, 1)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws rows, with shape (*sample_shape, *batch, A), 0 of what is absent, in A passes."""
        angles = len(self.angles.present)
        x = torch.zeros(*sample_shape, *self.batch_shape, angles, dtype=torch.float64)
        x = x.to(self.angles.most.device)
        seed = int(torch.randint(2**62, (), generator=generator))
        for i in range(angles):
            log_weights, unit, kappa = self.parameters(x)
            # The first arrival of Poisson processes with rates as the weights.
            waiting = torch.empty_like(kappa[..., i, :]).exponential_(generator=generator)
            chosen = (waiting.log() - log_weights[..., i, :]).argmin(dim=-1, keepdim=True)
            mu = torch.atan2(unit[..., i, :, 1], unit[..., i, :, 0])
            one = (part.gather(-1, chosen)[..., 0].cpu().numpy() for part in (mu, kappa[..., i, :]))
            drawn = np.random.default_rng([seed, i]).vonmises(*one)
            x[..., i] = torch.as_tensor(drawn)
        return x if self.observed is None else torch.where(self.observed, x, 0)
