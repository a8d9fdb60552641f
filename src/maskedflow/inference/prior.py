"""Priors: what torch, sbi and a list of distributions have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from maskedflow.distributions import Joint
from maskedflow.distributions.base import Base, Shape, log_density, unvalidated
from maskedflow.training.randomness import seeded


class Prior(Base):
    r"""A prior of D parameters, which knows its bounds.

    Outside of its support the log-density is :math:`-\infty`, and draws may come from a generator,
    whatever the distribution.

    Args:
        prior: A distribution of vectors, or of independent numbers; or a list of such, one beside
            the other. It has a `log_prob`, draws, and a support whose numbers are free of each
            other: intervals, half-lines, lines.

    Attributes:
        low: The lower bounds, :math:`-\infty` where there is none, with shape (D,), in float64.
        high: The upper bounds, likewise.

    Raises:
        TypeError: If it is no distribution.
        ValueError: If its support or its shape is another.

    Example:
        >>> from torch.distributions import LogNormal, Uniform
        >>> prior = Prior([Uniform(-1.0, 1.0), LogNormal(0.0, 1.0)])
        >>> prior.low, prior.high
        (tensor([-1.,  0.], dtype=torch.float64), tensor([1., inf], dtype=torch.float64))
        >>> prior.log_prob(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        tensor([-1.6121,    -inf])
    """

    low: Tensor
    high: Tensor

    def __init__(self, prior: Distribution | Sequence[Distribution]) -> None:
        if isinstance(prior, Prior):
            self.distribution: Distribution = prior.distribution
            self.low, self.high = prior.low, prior.high
        elif isinstance(prior, Sequence):
            if not prior:
                raise ValueError("prior: expected at least one distribution, got an empty list")
            parts = [_vector(part) for part in prior]
            bounds = [_bounds(part) for part in parts]
            self.distribution = Joint(*parts)
            self.low, self.high = (torch.cat(ends) for ends in zip(*bounds, strict=True))
        else:
            self.distribution = _vector(prior)
            self.low, self.high = _bounds(self.distribution)
        super().__init__((), self.distribution.event_shape)

    def __repr__(self) -> str:
        return f"Prior({self.distribution})"

    @property
    def features(self) -> int:
        """The number D of parameters."""
        return self.event_shape[0]

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.interval(self.low, self.high), 1)

    def contains(self, theta: Tensor) -> Tensor:
        """Which parameters, with shape (*, D), are between the bounds, which may belong to them."""
        return ((self.low <= theta) & (theta <= self.high)).all(dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        inside = self.contains(value)
        # What is outside is moved to somewhere inside, for the sake of distributions that object.
        anywhere = value[inside][:1] if bool(inside.any()) else None
        if anywhere is None:
            return value.new_full(inside.shape, -math.inf)
        value = torch.where(inside[..., None], value, anywhere)
        found = log_density(self.distribution, value.reshape(-1, self.features))
        return torch.where(inside, found.reshape(inside.shape), -math.inf)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws parameters, with shape (*sample_shape, D)."""
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            seed = None if generator is None else torch.randint(2**62, (), generator=generator)
            with nullcontext() if seed is None else seeded(int(seed)):
                theta = self.distribution.sample(torch.Size((shape.numel(),)))
        return theta.reshape(*shape, self.features)


def _vector(prior: Any) -> Distribution:
    """A distribution of vectors, made of one of independent numbers if need be."""
    if isinstance(prior, type):
        raise TypeError(f"prior: expected a distribution, got the class {prior.__name__}")
    for name in ("sample", "log_prob"):
        if not callable(getattr(prior, name, None)):
            raise TypeError(
                f"prior: expected a distribution with sample and log_prob, got a "
                f"{type(prior).__name__} without {name}"
            )
    shapes = [getattr(prior, name, None) for name in ("batch_shape", "event_shape")]
    match shapes:
        case [(), (_,)]:
            made = prior
        case [() | (_,), ()]:
            wide = prior if prior.batch_shape else prior.expand(torch.Size((1,)))
            made = Independent(wide, 1, validate_args=False)
        case _:
            batch, event = (None if shape is None else tuple(shape) for shape in shapes)
            raise ValueError(
                f"prior: expected event shape (D,) and no batch, got batch shape {batch} and event "
                f"shape {event}"
            )
    # Some of other libraries are no subclasses of torch's.
    return unvalidated(made) if isinstance(made, Distribution) else made


def _bounds(prior: Distribution) -> tuple[Tensor, Tensor]:
    """The lower and upper bounds of a distribution of vectors, in float64."""
    try:
        support = prior.support
    except (AttributeError, NotImplementedError):
        support = None
    if support is None:
        raise ValueError(
            f"prior: expected a distribution that knows its support, got a {type(prior).__name__} "
            "without one"
        )
    return _ends(support, prior.event_shape[0])


def _ends(support: Any, size: int) -> tuple[Tensor, Tensor]:
    """The bounds of so many numbers that a constraint is about."""
    while hasattr(support, "base_constraint"):  # of what is independent, or a mixture
        support = support.base_constraint
    if isinstance(support, constraints.cat):
        parts = zip(support.cseq, support.lengths, strict=True)
        lows, highs = zip(*(_ends(part, length) for part, length in parts), strict=True)
        return torch.cat(lows), torch.cat(highs)
    ends = [getattr(support, name, None) for name in ("lower_bound", "upper_bound")]
    low, high = (
        torch.as_tensor(free if end is None else end, dtype=torch.float64)
        for end, free in zip(ends, (-math.inf, math.inf), strict=True)
    )
    known = support is constraints.real or any(end is not None for end in ends)
    # Components of a mixture may have bounds of their own, which are those of no interval.
    apart = any(tuple(end.shape) not in ((), (1,), (size,)) for end in (low, high))
    if support.is_discrete or support.event_dim or not known or apart:
        raise ValueError(
            f"prior: expected parameters in intervals, half-lines or lines, got the support "
            f"{support}"
        )
    return low.expand(size).clone(), high.expand(size).clone()
