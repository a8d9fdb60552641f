"""Posteriors: what one asks of the parameters, given data."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import Distribution

from maskedflow.distributions.base import Shape, draw

from .ensemble import Ensemble
from .mode import find_mode
from .prior import Prior
from .simulations import as_numbers
from .stored import save_density
from .truncated import TruncatedPrior


class Posterior(abc.ABC):
    """The posterior p(theta | x) of D parameters, for whatever observation is asked about.

    Where `x` is left out it is the one of :meth:`set_default_x`. Draws come from torch's own
    generator unless there is another one.

    Attributes:
        prior: The prior.
    """

    def __init__(self, prior: Prior, dtype: torch.dtype) -> None:
        self.prior, self.dtype = prior, dtype
        self._default: Tensor | None = None

    @abc.abstractmethod
    def at(self, x: Any = None) -> Distribution:
        """The posterior of one observation as a distribution: what plots and other tools take.

        Args:
            x: The observation.

        Raises:
            ValueError: If its shape is another than that of the simulations, or it is not finite.
        """

    @abc.abstractmethod
    def _checked(self, x: Any) -> Tensor:
        """An observation as a tensor, checked."""

    def set_default_x(self, x: Any) -> Self:
        """Sets the observation that is meant where none is given; returns the posterior."""
        self._default = self._checked(x)
        return self

    def sample(
        self, sample_shape: Shape = (), x: Any = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws parameters, with shape (*sample_shape, D), all within the prior's support."""
        if isinstance(sample_shape, int):
            raise TypeError(
                f"sample_shape: expected a shape such as ({sample_shape},), got {sample_shape}"
            )
        with torch.no_grad():
            return draw(self.at(x), sample_shape, generator)

    def log_prob(self, theta: Any, x: Any = None) -> Tensor:
        r"""The log-density of parameters with shape (*, D), in nats.

        It is normalised, and :math:`-\infty` outside of the prior's support.
        """
        return self.at(x).log_prob(self._parameters(theta))

    def map(self, x: Any = None, generator: torch.Generator | None = None) -> Tensor:
        """The parameters whose density is highest, with shape (D,).

        Gradient ascent from the best of many draws, along the line that bounds are mapped to.
        """
        return find_mode(self.at(x), self.prior, generator)

    def _observed(self, x: Any) -> Tensor:
        if x is not None:
            return self._checked(x)
        if self._default is None:
            raise ValueError("x: expected an observation, or one set by set_default_x, got none")
        return self._default

    def _parameters(self, theta: Any) -> Tensor:
        keep = (
            theta
            if isinstance(theta, Tensor) and theta.requires_grad
            else as_numbers("theta", theta)
        )
        if keep.shape[-1:] != (self.prior.features,):
            raise ValueError(
                f"theta: expected shape (*, {self.prior.features}), got {tuple(keep.shape)}"
            )
        if keep.isnan().any():
            raise ValueError("theta: expected numbers, got NaN")
        return keep.to(self.dtype)


class DirectPosterior(Posterior):
    """A posterior whose density is a flow, for all observations at once.

    Args:
        prior: The prior.
        density: The flows, given the data.
        shape: The shape of an observation.
        dtype: The precision of parameters and data.
    """

    def __init__(
        self, prior: Prior, density: Ensemble, shape: torch.Size, dtype: torch.dtype
    ) -> None:
        super().__init__(prior, dtype)
        self.density, self.shape = density.eval().requires_grad_(False), shape

    def at(self, x: Any = None) -> Distribution:
        """The posterior of one observation as a distribution: what plots and other tools take."""
        return self.density.given(self._observed(x))

    def sample_batched(
        self, sample_shape: Shape, x: Any, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws parameters for many observations, with shape (*sample_shape, batch, D).

        Args:
            sample_shape: The draws for each observation.
            x: The observations, with shape (batch, *shape).
            generator: Where draws come from.
        """
        with torch.no_grad():
            return draw(self.density(self._batch(x)), sample_shape, generator)

    def log_prob_batched(self, theta: Any, x: Any) -> Tensor:
        """The log-densities of parameters for many observations, in nats.

        Args:
            theta: The parameters, with shape (*, batch, D).
            x: The observations, with shape (batch, *shape).

        Returns:
            Shape (*, batch).
        """
        found: Tensor = self.density(self._batch(x)).log_prob(self._parameters(theta))
        return found

    def truncated(
        self,
        x: Any = None,
        mass: float = 1 - 1e-4,
        generator: torch.Generator | None = None,
    ) -> TruncatedPrior:
        """The prior, restricted to where the posterior of an observation is: for a further round.

        Args:
            x: The observation.
            mass: The posterior's probability of the region, that of highest density.
            generator: Where the draws come from that tell how high that is.
        """
        return TruncatedPrior(self.prior, self.at(x), mass, generator)

    def save(self, path: str | Path) -> None:
        """Writes the weights to a safetensors file: data, never code.

        The prior, the flow and the embedding are code: :meth:`NPE.load` is told them again.
        """
        save_density(path, self.density)

    def _checked(self, x: Any) -> Tensor:
        value = as_numbers("x", x).to(self.dtype)
        if value.shape == (1, *self.shape):
            value = value[0]
        if value.ndim == 0 and self.shape == (1,):
            value = value[None]
        if value.shape != self.shape:
            raise ValueError(
                f"x: expected one observation of shape {tuple(self.shape)}, as the simulations, "
                f"got {tuple(value.shape)}"
            )
        return finite(value)

    def _batch(self, x: Any) -> Tensor:
        value = as_numbers("x", x).to(self.dtype)
        if value.shape[1:] != self.shape or not value.ndim:
            raise ValueError(
                f"x: expected observations of shape (batch, {', '.join(map(str, self.shape))}), "
                f"got {tuple(value.shape)}"
            )
        return finite(value)


def finite(x: Tensor) -> Tensor:
    """The same observation, if it is finite."""
    if not x.isfinite().all():
        raise ValueError("x: expected finite numbers, got nan or inf in the observation")
    return x
