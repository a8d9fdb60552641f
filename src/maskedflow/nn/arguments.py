"""What networks are given, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor, nn


def widths_of(hidden_features: Sequence[int]) -> list[int]:
    """The widths of hidden layers.

    Raises:
        TypeError: If they are no sequence of whole numbers.

    Example:
        >>> widths_of((64, 64))
        [64, 64]
    """
    given: Any = hidden_features
    try:
        return [index(width) for width in given]
    except TypeError:
        wanted = "expected whole numbers such as (64, 64)"
        raise TypeError(f"hidden_features: {wanted}, got {given!r}") from None


def activation_of(
    activation: Callable[[], nn.Module] | None, default: Callable[[], nn.Module] = nn.ReLU
) -> nn.Module:
    """A new activation function; that of `default` if None is given.

    Raises:
        TypeError: If it is given by anything but what makes one.

    Example:
        >>> activation_of(None), activation_of(nn.Tanh)
        (ReLU(), Tanh())
    """
    given: Any = default if activation is None else activation
    if isinstance(given, nn.Module) or not callable(given):
        raise TypeError(f"activation: expected a class such as torch.nn.ReLU, got {given!r}")
    made: nn.Module = given()
    return made


def check_dtype(name: str, value: Tensor, weight: Tensor) -> None:
    """Refuses a tensor of another dtype than the weights', by a ValueError."""
    if value.dtype == weight.dtype or torch.is_autocast_enabled(value.device.type):
        return
    mine, found = (str(one.dtype).removeprefix("torch.") for one in (weight, value))
    raise ValueError(
        f"{name}: expected a tensor of {mine}, as the parameters are, got one of {found}; "
        f"use {name}.to(torch.{mine})" + (", or flow.double()" if found == "float64" else "")
    )
