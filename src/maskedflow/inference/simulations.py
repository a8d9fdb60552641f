"""Parameters and simulations as they come: tensors or arrays, some of them not finite."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .prior import Prior


@dataclass(frozen=True)
class Simulations:
    """Parameters, and what a simulator made of each.

    Args:
        theta: The parameters, with shape (n, D).
        x: The simulations, with shape (n, *shape), in the same dtype.
    """

    theta: Tensor
    x: Tensor

    @classmethod
    def of(cls, theta: Any, x: Any, prior: Prior) -> Simulations:
        """Checks them, and leaves out rows that are not finite, with a warning.

        Raises:
            ValueError: If shapes do not fit, fewer than two rows are left, or parameters are
                outside of the prior's support.
        """
        theta, x = as_numbers("theta", theta), as_numbers("x", x)
        if theta.ndim == 1 and prior.features == 1:
            theta = theta[:, None]
        if theta.ndim != 2 or theta.shape[1] != prior.features:
            raise ValueError(
                f"theta: expected shape (n, {prior.features}), as the prior's, got "
                f"{tuple(theta.shape)}"
            )
        if x.ndim == 1:
            x = x[:, None]
        if not x.shape[1:].numel():
            raise ValueError(f"x: expected numbers of each simulation, got {tuple(x.shape)}")
        if len(x) != len(theta):
            raise ValueError(
                f"x: expected {len(theta)} simulations, one for each row of theta, got {len(x)}"
            )
        dtype = torch.promote_types(theta.dtype, x.dtype)
        theta, x = theta.to(dtype), x.to(dtype)
        finite = theta.isfinite().all(dim=1) & x.isfinite().flatten(1).all(dim=1)
        if lost := len(finite) - int(finite.sum()):
            theta, x = theta[finite], x[finite]
            warnings.warn(
                f"{lost} of {len(finite)} simulations are not finite, and are left out",
                stacklevel=4,
            )
        if len(theta) < 2:
            raise ValueError(f"theta: expected at least 2 rows to learn from, got {len(theta)}")
        outside = ~prior.contains(theta)
        if outside.any():
            row = int(outside.nonzero()[0])
            raise ValueError(
                f"theta: expected rows within the prior's support, got {theta[row].tolist()} in "
                f"row {row}"
            )
        return cls(theta, x)

    def __add__(self, other: Simulations) -> Simulations:
        """These, and then others."""
        if self.x.shape[1:] != other.x.shape[1:]:
            raise ValueError(
                f"x: expected shape (n, {shape_text(self.x)}) as in earlier rounds, got "
                f"{tuple(other.x.shape)}"
            )
        dtype = torch.promote_types(self.x.dtype, other.x.dtype)
        theta = torch.cat([self.theta.to(dtype), other.theta.to(dtype)])
        return Simulations(theta, torch.cat([self.x.to(dtype), other.x.to(dtype)]))


def as_numbers(name: str, value: Any) -> Tensor:
    """A tensor of floats: what is float64 stays so, integers become torch's default."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        raise TypeError(f"{name}: expected a tensor or an array, got a {kind}") from None
    if tensor.is_complex():
        raise TypeError(f"{name}: expected real numbers, got {tensor.dtype}")
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.to(torch.get_default_dtype())
    return tensor.detach()


def shape_text(x: Tensor) -> str:
    """The shape of a row, as it stands in a message."""
    return ", ".join(map(str, x.shape[1:]))
