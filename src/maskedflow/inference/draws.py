"""What tests ask of a posterior: many samples and log-densities, for many observations at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maskedflow.posteriors.faces import quietly
from maskedflow.training import randomness
from maskedflow.training.randomness import derive_seed

ROWS = 100_000
"""About how many samples are computed at once."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Has all that is drawn inside follow from a seed, without gradients."""
    # Not the seed itself: parameters that were drawn by the same one would be no others.
    with randomness.seeded(derive_seed(seed)), torch.no_grad():
        yield


def numpys(seed: int) -> np.random.Generator:
    """NumPy's generator for what is drawn here and not by a posterior."""
    return np.random.default_rng(derive_seed(seed))


def pairs_of(theta: ArrayLike | Tensor, x: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    """Parameters, shape (N, D), and what was simulated of each, shape (N, ...), as tensors.

    Raises:
        ValueError: If they are no pairs, or parameters are not finite.
    """
    theta, x = torch.as_tensor(theta), torch.as_tensor(x)
    theta = theta if theta.is_floating_point() else theta.double()
    if theta.ndim != 2 or len(theta) < 2:
        shape = tuple(theta.shape)
        raise ValueError(f"theta: expected shape (N, D) with N of 2 or more, got {shape}")
    if x.ndim < 2 or len(x) != len(theta):
        raise ValueError(
            f"x: expected shape ({len(theta)}, ...), a simulation for each row of theta, got"
            f" {tuple(x.shape)}"
        )
    if not theta.isfinite().all():
        row = int((~theta.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"theta: expected finite numbers, got {theta[row].tolist()} in row {row}")
    return theta, x


def draw(posterior: Any, x: Tensor, n: int, features: int, seed: int) -> Tensor:
    """Draws n samples given each observation: x has shape (N, ...), the samples (n, N, D).

    All observations go in one call where the posterior has `sample_batched`, else one by one.

    Raises:
        TypeError: If the posterior draws no samples.
        ValueError: If n is less than one, or the samples are of another shape.
    """
    check_number(n)
    if not any(hasattr(posterior, name) for name in ("sample", "sample_batched")):
        raise TypeError(
            f"posterior: expected one with sample(shape, x=...), got a {type(posterior).__name__}"
        )
    with seeded(seed):
        found = torch.cat([_samples(posterior, part, n) for part in _blocks(x, n)], dim=1)
    expected = (n, len(x), features)
    if tuple(found.shape) != expected:
        raise ValueError(
            f"posterior: expected samples of shape {expected}, got {tuple(found.shape)}"
        )
    return found


def check_number(n: int) -> None:
    """Refuses a number of samples below one."""
    if n < 1:
        raise ValueError(f"n: expected at least 1 sample, got {n}")


def log_probs(posterior: Any, theta: Tensor, x: Tensor, seed: int) -> Tensor:
    """The log-densities, shape (n, N), of parameters (n, N, D), given x of shape (N, ...).

    Raises:
        ValueError: If one of them is not a number.
    """
    with seeded(seed):
        parts = zip(_blocks(theta, len(theta), dim=1), _blocks(x, len(theta)), strict=True)
        found = torch.cat([_scores(posterior, *part) for part in parts], dim=1)
    if found.isnan().any():
        pair = int(found.isnan().any(0).nonzero()[0])
        raise ValueError(f"posterior: expected a log-density, got NaN given row {pair} of x")
    return found


def uniform_ranks(
    less: Tensor, equal: Tensor, n: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    r"""Ranks among n draws as numbers that are uniform on (0, 1) where ranks are.

    .. math:: u = \frac{\mathrm{less} + v \, (\mathrm{equal} + 1)}{n + 1}, \qquad
        v \sim \mathcal{U}(0, 1)

    A rank among distinct draws is spread over its cell, among equal ones over all of theirs: so
    tests for continuous numbers are exact, whatever n is.

    Args:
        less: How many draws come before, of any shape.
        equal: How many are the same.
        n: How many there are.
        rng: Where v comes from.
    """
    low, width = less.numpy(force=True), equal.numpy(force=True) + 1
    found: NDArray[np.float64] = (low + rng.random(low.shape) * width) / (n + 1)
    return found


def _blocks(rows: Tensor, n: int, dim: int = 0) -> Sequence[Tensor]:
    blocks: Sequence[Tensor] = rows.split(max(1, ROWS // n), dim=dim)
    return blocks


def _samples(posterior: Any, x: Tensor, n: int) -> Tensor:
    if hasattr(posterior, "sample_batched"):
        with suppress(NotImplementedError):  # what some posteriors of sbi say
            return quietly(posterior.sample_batched, (n,), x)
    return torch.stack([quietly(posterior.sample, (n,), x=one) for one in x], dim=1)


def _scores(posterior: Any, theta: Tensor, x: Tensor) -> Tensor:
    if hasattr(posterior, "log_prob_batched"):
        with suppress(NotImplementedError):
            return quietly(posterior.log_prob_batched, theta, x)
    pairs = zip(theta.unbind(1), x, strict=True)
    return torch.stack([quietly(posterior.log_prob, some, x=one) for some, one in pairs], dim=1)
