"""What one has beside a density: samples, their weights, and log-densities at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .faces import names_of
from .named import NamedDensity


def log_values(what: str, thing: Any, x: Tensor, columns: Sequence[str]) -> Tensor:
    """The log-density at rows x, float64, shape (n,), by numbers, a function or a density of it.

    Numbers are what a chain keeps beside its samples; a function need not be normalised.
    """
    if isinstance(thing, Tensor | np.ndarray):
        values = torch.as_tensor(thing)
    elif callable(thing) and not isinstance(thing, nn.Module):
        values = thing(x)
    else:
        values = NamedDensity.of(thing, columns).log_prob(x)
    if values.shape != x.shape[:1]:
        raise ValueError(f"{what}: expected shape ({len(x)},), got {tuple(values.shape)}")
    wrong = values.isnan() | (values == torch.inf)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"{what}: expected a number at row {row}, got {values[row].item()}")
    return values.double()


def rows_of(
    samples: Any, columns: Sequence[str] | None, n: int, seed: int
) -> tuple[tuple[str, ...], Tensor]:
    """Samples as they are, shape (n, D), or drawn from a density: the columns, and rows."""
    if isinstance(samples, Tensor | np.ndarray):
        x = torch.as_tensor(samples)
        if x.ndim != 2 or not len(x):
            raise ValueError(f"samples: expected shape (n, features), got {tuple(x.shape)}")
        return names_of(columns, x.shape[1]), x
    density = NamedDensity.of(samples, columns)
    return density.columns, density.sample(n, seed)


def log_shares(weights: Any, n: int) -> Tensor:
    """The logarithms of weights of samples, float64, zeros if None."""
    if weights is None:
        return torch.zeros(n, dtype=torch.float64)
    found = torch.as_tensor(weights, dtype=torch.float64)
    if found.shape != (n,) or not (found >= 0).all() or not 0 < found.sum() < torch.inf:
        raise ValueError(f"weights: expected {n} numbers from 0 on, not all 0")
    return found.log()
