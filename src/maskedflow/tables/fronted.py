"""Densities of numbers some of which may be absent, behind element-wise maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from maskedflow.distributions import refuse_nan
from maskedflow.distributions.base import Base, Shape
from maskedflow.flows import LazyDistribution
from maskedflow.transforms import (
    ComposedTransform,
    LazyComposedTransform,
    LazyTransform,
    check_features,
)

from .missing import call_observed, observed_features


class FrontedFlow(LazyDistribution):
    r"""A lazy density of x some of whose features may be absent, behind element-wise maps f.

    .. math:: \log p(x_O \mid c) = \log p_B(f_O(x_O) \mid c) + \sum_{i \in O} \log |f_i'(x_i)|

    The base knows itself what is absent, which comes in as 0: it is the marginal of the others.
    A density and a sample cost those of the base.

    Args:
        front: The lazy element-wise transforms, the first applied to the data.
        base: The lazy density of what they make.
        present: For each feature the dimension of the context that is 1 if it is observed and 0 if
            not; None if it always is.
    """

    def __init__(
        self,
        front: Sequence[LazyTransform],
        base: LazyDistribution,
        present: Sequence[int | None],
    ) -> None:
        super().__init__()
        self.front, self.base = LazyComposedTransform(*front), base
        self.present = tuple(present)

    @property
    def is_rowwise(self) -> bool:  # type: ignore[override]
        return self.base.is_rowwise

    def log_probs_at(self, places: Tensor, c: Tensor | None = None) -> Tensor:
        observed = observed_features(self.present, c)
        z, ladj = _mapped(self.front(c), places, observed)
        return self.base.log_probs_at(z, c) + ladj

    def forward(self, c: Tensor | None = None) -> FrontedDistribution:
        """Makes the distribution for the context `c`, with shape (*, context), or none."""
        observed = observed_features(self.present, c)
        return FrontedDistribution(self.front(c), self.base(c), observed)


class FrontedDistribution(Base):
    """The distribution that a :class:`FrontedFlow` makes for a context, with shape (*, C)."""

    def __init__(self, transform: Any, base: Any, observed: Tensor | None) -> None:
        self.transform = cast(ComposedTransform, transform)
        self.base, self.observed = base, observed
        super().__init__(base.batch_shape, base.event_shape)

    def __repr__(self) -> str:
        return f"FrontedDistribution({self.transform}, {self.base})"

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of the observed features of points, (*, D), in nats.

        Raises:
            ValueError: If the shape does not fit, or an observed feature is NaN.
        """
        z, ladj = self._mapped(value)
        return cast(Tensor, self.base.log_prob(z)) + ladj

    def residuals(self, value: Tensor, u: Tensor) -> Tensor:
        """PIT residuals, (n, D); u, (n,), are random numbers that choose a component."""
        return cast(Tensor, self.base.residuals(self._mapped(value)[0], u))

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        x = self.transform.inv(self.base.sample(sample_shape, generator))
        return x if self.observed is None else torch.where(self.observed, x, 0)

    def _mapped(self, value: Tensor) -> tuple[Tensor, Tensor]:
        check_features("x", value, self.event_shape[0])
        return _mapped(self.transform, value, self.observed)


def _mapped(f: Any, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
    """What comes out of a front for the observed features, and the ladj of these."""
    if observed is None:
        refuse_nan("x", x)
        z, ladj = f.call_and_ladj(x)
        return z, ladj
    x, observed = torch.broadcast_tensors(x, observed)
    x = torch.where(observed, x, 0)
    refuse_nan("x", x)
    return call_observed(f, x, observed)[:2]
