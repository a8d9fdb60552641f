"""The distribution of a flow, and bases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import indent
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.distributions.transforms import Transform

from .staircase import is_traced
from .transforms import call_and_ladj

__all__ = ["DiagNormal", "NormalizingFlow"]


class DiagNormal(Distribution):
    r"""A normal distribution of independent features.

    .. math:: \log p(x) = -\frac{1}{2} \sum_i \left( \frac{x_i - \mu_i}{\sigma_i} \right)^2
        + \log 2 \pi \sigma_i^2

    Args:
        loc: The means :math:`\mu`, with shape (*, D).
        scale: The standard deviations :math:`\sigma`, with shape (*, D).

    Example:
        >>> DiagNormal(torch.zeros(2), torch.ones(2)).log_prob(torch.zeros(2))
        tensor(-1.8379)
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch's name
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc: Tensor
        self.scale: Tensor
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=False)

    def __repr__(self) -> str:
        return f"DiagNormal(loc: {self.loc.shape}, scale: {self.scale.shape})"

    @property
    def mean(self) -> Tensor:
        """The means."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variances of the features."""
        return self.scale.square()

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> DiagNormal:
        shape = (*batch_shape, *self.event_shape)
        return DiagNormal(self.loc.expand(shape), self.scale.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        constant: Tensor = self.scale.log().sum(dim=-1) + 0.5 * z.shape[-1] * math.log(2 * math.pi)
        return -0.5 * z.square().sum(dim=-1) - constant

    def rsample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        noise = torch.randn(
            shape, dtype=self.loc.dtype, device=self.loc.device, generator=generator
        )
        return self.loc + noise * self.scale

    def sample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape, generator)


class NormalizingFlow(Distribution):
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

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch's name
    has_rsample = True

    def __init__(self, transform: Transform, base: Distribution) -> None:
        missing = transform.codomain.event_dim - len(base.event_shape)
        self.transform = transform
        self.base = Independent(base, missing) if missing > 0 else base
        self._reinterpreted = max(-missing, 0)
        event_shape = transform.inverse_shape(self.base.event_shape)
        super().__init__(self.base.batch_shape, Size(event_shape), validate_args=False)

    def __repr__(self) -> str:
        lines = f"(transform): {self.transform}\n(base): {self.base}"
        return f"{type(self).__name__}(\n{indent(lines, '  ')}\n)"

    @property
    def support(self) -> constraints.Constraint:
        """Where the density may be positive."""
        return self.transform.domain

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> NormalizingFlow:
        return NormalizingFlow(self.transform, self.base.expand(Size(batch_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of each row, in nats.

        Args:
            value: The points, with shape (*, features).

        Returns:
            The log-densities, with the broadcast of the batch shapes of `value` and of the flow.

        Raises:
            ValueError: If `value` has the wrong number of features or holds NaN.
        """
        self._check(value)
        z, ladj = call_and_ladj(self.transform, value)
        return self.base.log_prob(z) + self._event_sum(ladj)

    def rsample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws points that have gradients; `generator` is where the base's draws come from."""
        x: Tensor = self.transform.inv(self._base_sample(sample_shape, generator))
        return x

    def sample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws points, with shape (*sample_shape, *batch_shape, features), without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator)

    def rsample_and_log_prob(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws points that have gradients, and their log-densities, at the price of the points."""
        z = self._base_sample(sample_shape, generator)
        x, ladj = call_and_ladj(self.transform.inv, z)
        return x, self.base.log_prob(z) - self._event_sum(ladj)

    def _base_sample(
        self, sample_shape: Sequence[int], generator: torch.Generator | None
    ) -> Tensor:
        draw = self.base.rsample if self.base.has_rsample else self.base.sample
        if generator is None:
            return draw(Size(sample_shape))
        if type(self.base).__module__.startswith("torch."):
            raise ValueError(
                f"generator: the base {type(self.base).__name__} draws from torch's global "
                "generator only"
            )
        return draw(Size(sample_shape), generator=generator)  # type: ignore[call-arg]

    def _event_sum(self, ladj: Tensor) -> Tensor:
        dims = self._reinterpreted
        return ladj.flatten(-dims).sum(dim=-1) if dims > 0 else ladj

    def _check(self, value: Tensor) -> None:
        dims = len(self.event_shape)
        if dims and (value.ndim < dims or value.shape[-dims:] != self.event_shape):
            raise ValueError(
                f"x: expected shape (*, {', '.join(map(str, self.event_shape))}), "
                f"got {tuple(value.shape)}"
            )
        refuse_nan("x", value)


def refuse_nan(name: str, value: Tensor) -> None:
    """Refuses a tensor that holds NaN.

    Raises:
        ValueError: If there is one, with its index.
    """
    # A sum is one cheap pass; only a suspicious one is worth a closer look.
    if not is_traced() and not math.isfinite(value.detach().sum()) and value.isnan().any():
        index = value.isnan().nonzero()[0].tolist()
        raise ValueError(f"{name}: expected numbers, got NaN at index {index}")
