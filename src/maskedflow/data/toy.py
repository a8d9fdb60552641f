"""Toy densities on the plane, drawn to order: what a flow can and cannot bend itself into."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor


def toy(name: str, n: int, generator: Generator | None = None) -> Tensor:
    """Draws `n` points of a toy density on the plane.

    The densities are `moons`, `circles`, `checkerboard`, `spirals`, `rings` and `8gaussians`. Their
    points are within about [-4, 4]², float32, shape `(n, 2)`, in random order.

    Raises:
        ValueError: If there is no toy density of this name, or `n` is negative.

    Example:
        >>> toy("moons", 3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
    """
    if name not in TOYS:
        raise ValueError(f"name: no toy density {name!r}; known: {', '.join(TOYS)}")
    if n < 0:
        raise ValueError(f"n: expected a number of points >= 0, got {n}")
    return TOYS[name](n, generator)


def _uniform(n: int, generator: Generator | None) -> Tensor:
    return torch.rand(n, generator=generator)


def _choice(n: int, k: int, generator: Generator | None) -> Tensor:
    return torch.randint(k, (n,), generator=generator)


def _noisy(x: Tensor, y: Tensor, noise: float, generator: Generator | None) -> Tensor:
    points = torch.stack((x, y), dim=-1)
    return points + noise * torch.randn(points.shape, generator=generator)


def _moons(n: int, generator: Generator | None) -> Tensor:
    """Two interleaved half circles."""
    angle = math.pi * _uniform(n, generator)
    lower = _choice(n, 2, generator) == 1
    x = torch.where(lower, 1 - angle.cos(), angle.cos())
    y = torch.where(lower, 0.5 - angle.sin(), angle.sin())
    return _noisy(2 * x - 1, 2 * y - 0.5, 0.2, generator)


def _circles(radii: tuple[float, ...], n: int, generator: Generator | None) -> Tensor:
    """Concentric circles."""
    angle = 2 * math.pi * _uniform(n, generator)
    radius = torch.tensor(radii)[_choice(n, len(radii), generator)]
    return _noisy(radius * angle.cos(), radius * angle.sin(), 0.15, generator)


def _checkerboard(n: int, generator: Generator | None) -> Tensor:
    """The eight squares of one colour on a four by four board; no noise, so hard edges."""
    square = _choice(n, 8, generator)
    row = square // 2
    column = 2 * (square % 2) + row % 2
    corner = torch.stack((column, row), dim=-1) - 2
    return 2 * (corner + torch.rand(n, 2, generator=generator))


def _spirals(n: int, generator: Generator | None) -> Tensor:
    """Two arms, one the other's half turn."""
    angle = 3 * math.pi * _uniform(n, generator).sqrt()
    arm = 2 * _choice(n, 2, generator) - 1
    return _noisy(-arm * angle * angle.cos() / 3, arm * angle * angle.sin() / 3, 0.1, generator)


def _eight_gaussians(n: int, generator: Generator | None) -> Tensor:
    """Eight round Gaussians on a circle."""
    angle = math.pi / 4 * _choice(n, 8, generator)
    return _noisy(2.8 * angle.cos(), 2.8 * angle.sin(), 0.35, generator)


TOYS: dict[str, Callable[[int, Generator | None], Tensor]] = {
    "moons": _moons,
    "circles": partial(_circles, (1.5, 3.0)),
    "checkerboard": _checkerboard,
    "spirals": _spirals,
    "rings": partial(_circles, (0.75, 1.5, 2.25, 3.0)),
    "8gaussians": _eight_gaussians,
}
