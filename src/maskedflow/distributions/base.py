"""What the distributions here share: a place where draws come from."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Independent, constraints

from maskedflow.transforms.support import moved_inside, outside

Shape = Sequence[int]


class Base(Distribution):
    r"""A distribution whose draws come from a generator, and which leaves validation to its parts.

    Subclasses define

    - `log_prob(value)`: value has shape (\*sample, \*batch, \*event), the log-density, in nats,
      shape (\*sample, \*batch); outside of the support it is :math:`-\infty`;
    - `rsample(sample_shape, generator)`, with `has_rsample = True`, or `sample` where draws have no
      gradients;
    - `expand(batch_shape)`, if a flow whose context is a batch has it for a base;
    - `log_probs_at(places)`, where places of a cell have work in common.

    They hand batch and event shape to the constructor. The rest of torch's methods comes free.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, batch_shape: Shape, event_shape: Shape) -> None:
        super().__init__(Size(batch_shape), Size(event_shape), validate_args=False)

    def density(self, value: Tensor) -> Tensor:
        """The log-density as it comes out, of values that are not checked."""
        return self.log_prob(value)

    def log_probs_at(self, places: Tensor) -> Tensor:
        r"""The log-densities of places in a cell, shape (M, \*batch, D), of each point of a batch.

        They are those of M samples. A distribution overrides this where places of the same cell
        have work in common.
        """
        return self.log_prob(places)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws points, with shape (*sample_shape, *batch_shape, *event_shape), no gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator)

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws points that have gradients."""
        raise NotImplementedError(f"{type(self).__name__} has no draws with gradients")


def draw(
    distribution: Distribution, sample_shape: Shape, generator: torch.Generator | None = None
) -> Tensor:
    """Draws from any distribution, with gradients where it has them.

    Raises:
        ValueError: If there is a generator, and the distribution is one of torch's.
    """
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    method = distribution.rsample if distribution.has_rsample else distribution.sample
    if generator is None:
        return method(Size(sample_shape))
    if type(distribution).__module__.startswith("torch."):
        raise ValueError(
            f"generator: a {type(distribution).__name__} draws from torch's global generator only"
        )
    return method(Size(sample_shape), generator=generator)  # type: ignore[call-arg]


def draw_and_log_prob(
    distribution: Distribution, sample_shape: Shape, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draws as :func:`draw` does, with log-probabilities, together where that is cheaper."""
    if hasattr(distribution, "rsample_and_log_prob"):
        x, log_prob = distribution.rsample_and_log_prob(sample_shape, generator)
        return x, log_prob
    x = draw(distribution, sample_shape, generator)
    return x, log_density(distribution, x)


def log_density(distribution: Distribution, value: Tensor) -> Tensor:
    r"""The log-density of values that come out of a transform, which may be any.

    Outside of the support it is :math:`-\infty`, of torch's own distributions too.

    Example:
        >>> from torch.distributions import Exponential
        >>> base = unvalidated(Exponential(1.0))
        >>> base.log_prob(torch.tensor(-2.0)), log_density(base, torch.tensor(-2.0))
        (tensor(2.), tensor(-inf))
    """
    if isinstance(distribution, Base):
        return distribution.density(value)
    support = distribution.support
    if support is None or (wrong := outside(support, value)) is None:
        return distribution.log_prob(value)
    log_prob = distribution.log_prob(moved_inside(support, value, wrong))
    return torch.where(wrong, -math.inf, log_prob)


def probability_below(distribution: Distribution, value: Tensor) -> Tensor:
    """The distribution function of any values, of torch's own distributions of one number too.

    Outside of the support it is 0 or 1, where theirs goes on as its formula does.

    Example:
        >>> from torch.distributions import Exponential
        >>> x = torch.tensor([-2.0, 1.0, math.inf])
        >>> probability_below(unvalidated(Exponential(1.0)), x)
        tensor([0.0000, 0.6321, 1.0000])
    """
    support = None if isinstance(distribution, Base) else distribution.support
    if support is None or (wrong := outside(support, value)) is None:
        return distribution.cdf(value)
    inside = moved_inside(support, value, wrong)
    below = distribution.cdf(inside)
    return torch.where(wrong, (value > inside).to(below), below)


def unvalidated(distribution: Distribution) -> Distribution:
    """The same distribution, to which no value is an error; see :func:`log_density`.

    Example:
        >>> from torch.distributions import Uniform
        >>> unvalidated(Uniform(0.0, 1.0)).log_prob(torch.tensor(2.0))
        tensor(-inf)
    """
    if distribution._validate_args:
        distribution = copy.copy(distribution)
        distribution._validate_args = False
        if hasattr(distribution, "base_dist"):
            distribution.base_dist = unvalidated(distribution.base_dist)
    return distribution


def require_number(distribution: Distribution) -> None:
    """Refuses a base whose events are not numbers, by a ValueError."""
    if distribution.event_shape:
        raise ValueError(
            f"base: expected a distribution of one number, got events of shape "
            f"{tuple(distribution.event_shape)}"
        )
