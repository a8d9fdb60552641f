"""The distribution of a flow."""

from __future__ import annotations

import math
from dataclasses import replace
from textwrap import indent
from typing import Any, cast

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.distributions.transforms import Transform

from maskedflow.transforms import call_and_ladj, spread
from maskedflow.transforms.base import sum_rightmost

from .base import Shape, draw, log_density, unvalidated
from .density import Density
from .elementwise import DiagNormal


class NormalizingFlow(Density):
    r"""The distribution of x such that z = f(x) is distributed as a base.

    .. math:: \log p(x) = \log p_Z(f(x)) + \log \left| \det \frac{\partial f(x)}{\partial x} \right|

    A density costs the forward direction of f, a sample its inverse.

    Args:
        transform: The map f from data to latent.
        base: The distribution of the latent.

    References:
        | Normalizing Flows for Probabilistic Modeling and Inference (Papamakarios et al., 2021)
        | https://arxiv.org/abs/1912.02762

    Example:
        >>> from torch.distributions import ExpTransform, Normal
        >>> log_normal = NormalizingFlow(ExpTransform().inv, Normal(0.0, 1.0))
        >>> log_normal.log_prob(torch.tensor(1.0))
        tensor(-0.9189)
    """

    has_rsample = True

    def __init__(self, transform: Transform, base: Distribution) -> None:
        base = unvalidated(base)
        missing = transform.codomain.event_dim - len(base.event_shape)
        self.transform = transform
        self.base = Independent(base, missing, validate_args=False) if missing > 0 else base
        self._reinterpreted = max(-missing, 0)
        event_shape = transform.inverse_shape(self.base.event_shape)
        super().__init__(self.base.batch_shape, event_shape)

    def __repr__(self) -> str:
        lines = f"(transform): {self.transform}\n(base): {self.base}"
        return f"{type(self).__name__}(\n{indent(lines, '  ')}\n)"

    @property
    def support(self) -> constraints.Constraint:
        return self.transform.domain

    def expand(self, batch_shape: Shape, _instance: Any = None) -> NormalizingFlow:
        new = type(self)(self.transform, self.base.expand(Size(batch_shape)))
        new.origin = self.origin
        return new

    def tempered(self, temperature: float) -> NormalizingFlow:
        """The flow whose Gaussian base has its standard deviations times a temperature.

        Below 1 samples look more typical and vary less; at 0 each is the image of the base's mode.
        The density is that of such samples, and not the flow's own.

        Raises:
            ValueError: If it is negative, or the base is neither Gaussian nor such a flow.

        References:
            Glow (Kingma and Dhariwal, 2018), section 6, https://arxiv.org/abs/1807.03039

        Example:
            >>> from maskedflow.flows import MAF
            >>> MAF(2)().tempered(0.7).base.scale
            tensor([0.7000, 0.7000])
        """
        if not temperature >= 0:
            raise ValueError(f"temperature: expected a number from 0 on, got {temperature}")
        if not isinstance(self.base, DiagNormal | NormalizingFlow):
            raise ValueError(
                f"temperature: expected a Gaussian base, got a {type(self.base).__name__}"
            )
        flow = NormalizingFlow(self.transform, self.base.tempered(temperature))
        if (origin := self.origin) is not None:

            def again(*inputs: Any) -> NormalizingFlow:
                return cast(NormalizingFlow, origin.make(*inputs)).tempered(temperature)

            flow.origin = replace(origin, make=again)
        return flow

    def density(self, value: Tensor) -> Tensor:
        transform, points = spread(self.transform, value)
        found = []
        for x in points:
            z, ladj = call_and_ladj(transform, x)
            found.append(log_density(self.base, z) + sum_rightmost(ladj, self._reinterpreted))
        if len(found) == 1:
            return found[0]
        return torch.stack(found).logsumexp(dim=0) - math.log(len(found))

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws points that have gradients; `generator` is where the base's draws come from."""
        x: Tensor = self.transform.inv(draw(self.base, sample_shape, generator))
        return x

    def rsample_and_log_prob(
        self, sample_shape: Shape = (), generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws points that have gradients, and their log-densities, at the price of the points."""
        z = draw(self.base, sample_shape, generator)
        x, ladj = call_and_ladj(self.transform.inv, z)
        return x, log_density(self.base, z) - sum_rightmost(ladj, self._reinterpreted)
