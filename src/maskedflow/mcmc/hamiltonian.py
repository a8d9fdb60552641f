"""Paths of Hamiltonian Monte Carlo, in the data's space or in a flow's latent space."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from maskedflow.training.posterior import LogDensity
from maskedflow.transforms import call_and_ladj


class Point(NamedTuple):
    """Where chains are: latents with their log-density and its slope, and the same in the data."""

    u: Tensor
    log_density: Tensor
    slope: Tensor
    x: Tensor
    log_p: Tensor


class Target:
    """An unnormalised log-density, and how often it was asked for.

    Args:
        log_density: The log-density, in the data's space.
        transform: The map from data to latents, in which the paths are; none if None.
    """

    def __init__(self, log_density: LogDensity, transform: Transform | None = None) -> None:
        self._log_density = log_density
        self._inverse = None if transform is None else transform.inv
        self.evaluations = self.gradients = 0

    def log_p(self, x: Tensor) -> Tensor:
        r"""The log-density at points, (n, features), and :math:`-\infty` where it is not finite."""
        known = x.isfinite().all(dim=-1)
        log_p = self._log_density(torch.where(known[:, None], x, 0.0))
        if log_p.shape != x.shape[:-1]:
            raise ValueError(
                f"log_density: expected shape {tuple(x.shape[:-1])} for x of shape "
                f"{tuple(x.shape)}, got {tuple(log_p.shape)}"
            )
        self.evaluations += log_p.numel()
        return torch.where(known & log_p.isfinite(), log_p, -math.inf)

    def point(self, u: Tensor) -> Point:
        """All of a point, given its latents; where the slope is not finite it is zero."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            x, ladj = (
                (u, u.new_zeros(())) if self._inverse is None else call_and_ladj(self._inverse, u)
            )
            log_p = self.log_p(x)
            if not log_p.requires_grad:
                raise ValueError("log_density: expected a function with gradients, got one without")
            whole = log_p + ladj
            whole = torch.where(whole.isfinite(), whole, -math.inf)
            (slope,) = torch.autograd.grad(whole.sum(), u)
        self.gradients += len(u)
        slope = torch.where(slope.isfinite(), slope, 0.0)
        return Point(*(one.detach() for one in (u, whole, slope, x, log_p)))


class Hamiltonian:
    """A move of chains to the end of a path of leapfrog steps, whose size it adapts.

    The size is adapted by dual averaging: the mean over the chains of the acceptance is to be
    `acceptance`.

    Args:
        target: The log-density.
        most: The most steps; how many is drawn for each path.
        acceptance: The acceptance aimed at.
        features: The number of features, for a first guess.
    """

    def __init__(self, target: Target, most: int, acceptance: float, features: int) -> None:
        self._target, self._most, self._acceptance = target, most, acceptance
        self._log_size = self._log_mean = -0.25 * math.log(features)
        self._centre = self._log_size + math.log(10)
        self._lack, self._updates = 0.0, 0

    def __call__(
        self, here: Point, adapts: bool, generator: torch.Generator | None
    ) -> tuple[Point, Tensor]:
        """Where chains are next, and which of them have moved."""
        size = math.exp(self._log_size if adapts else self._log_mean)
        device = here.u.device
        steps = int(torch.randint(self._most, (), device=device, generator=generator)) + 1
        there, gain = self._path(here, size, steps, generator)
        if adapts:
            probability = gain.nan_to_num(nan=-math.inf).clamp(max=0).exp()
            self._adapt(probability.mean().item())
        accept = log_uniform(gain, generator) < gain
        pairs = zip(there, here, strict=True)
        return Point(*(torch.where(_beside(accept, new), new, old) for new, old in pairs)), accept

    def _path(
        self, here: Point, size: float, steps: int, generator: torch.Generator | None
    ) -> tuple[Point, Tensor]:
        """The end of a path, and the log of the ratio of the densities there and here."""
        like = here.u
        momentum = speed = torch.randn(
            like.shape, dtype=like.dtype, device=like.device, generator=generator
        )
        there = here
        for _ in range(steps):
            speed = speed + 0.5 * size * there.slope
            u = there.u + size * speed
            # What moves beyond all numbers has infinite energy, and is rejected wherever it is.
            there = self._target.point(torch.where(u.isfinite(), u, there.u))
            speed = speed + 0.5 * size * there.slope
        energy = 0.5 * (momentum.square() - speed.square()).sum(dim=-1)
        return there, there.log_density - here.log_density + energy

    def _adapt(self, acceptance: float) -> None:
        """Equation 6 of Hoffman and Gelman (2014), with their constants."""
        self._updates += 1
        n = self._updates
        self._lack += (self._acceptance - acceptance - self._lack) / (n + 10)
        self._log_size = self._centre - n**0.5 / 0.05 * self._lack
        self._log_mean += n**-0.75 * (self._log_size - self._log_mean)


def log_uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """The logarithms of uniform numbers, as many as there are."""
    return torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=generator).log()


def _beside(rows: Tensor, value: Tensor) -> Tensor:
    """Rows with a dimension of size one for the features', if there are any."""
    return rows.reshape(-1, *[1] * (value.ndim - 1))
