"""What a report is about: a density and what is known of it, whatever model it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Column", "Image", "Rows", "Subject"]

Rows = NDArray[Any]
"""Rows of a table, shape (n, columns); NaN where a cell is missing."""


@dataclass(frozen=True)
class Column:
    """A column of the rows.

    Args:
        name: Its name.
        levels: The names of its categories, of which the cells are the numbers; none of a number.
    """

    name: str
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """That the rows are images.

    Args:
        shape: (channels, height, width).
        levels: The number of values of a pixel.
    """

    shape: tuple[int, int, int]
    levels: int


@dataclass(frozen=True)
class Subject:
    """A density, for :func:`maskedflow.report.write_report`.

    Args:
        name: What it is called.
        columns: The columns of the rows, those that it is conditional on last.
        log_prob: Computes log p of each row in nats, shape (n, columns) -> (n,).
        sample: Draws n rows; of a conditional density, the given columns come from the data.
        given: The number of columns that it is conditional on.
        latent: Computes the random numbers that the density believes are behind each row,
            independent and N(0, 1); shape (n, columns) -> (n, numbers). None if it has none.
        unbounded: Makes rows continuous and unbounded, for a Gaussian to be fitted, with the
            log-determinant of doing so: (rows, seed) -> (rows, (n,)). None if they are already.
        notes: What is known of data and model, as pairs of a word and a text.
        history: One record an epoch, with ``train_nll`` and ``validation_nll``.
        image: That the rows are images.

    Example:
        >>> coin = Subject(
        ...     "coin",
        ...     (Column("side", ("heads", "tails")),),
        ...     log_prob=lambda rows: np.full(len(rows), -np.log(2)),
        ...     sample=lambda n, g: torch.randint(2, (n, 1), generator=g).numpy(),
        ... )
        >>> coin.numeric
        []
    """

    name: str
    columns: tuple[Column, ...]
    log_prob: Callable[[Rows], NDArray[np.float64]]
    sample: Callable[[int, torch.Generator], Rows]
    given: int = 0
    latent: Callable[[Rows], NDArray[np.float64]] | None = None
    unbounded: Callable[[Rows, int], tuple[Rows, NDArray[np.float64]]] | None = None
    notes: Sequence[tuple[str, str]] = ()
    history: Sequence[dict[str, Any]] = ()
    image: Image | None = None

    @property
    def features(self) -> int:
        """The number of columns that the density is of."""
        return len(self.columns) - self.given

    @property
    def numeric(self) -> list[int]:
        """Which columns hold numbers."""
        return [i for i, column in enumerate(self.columns) if not column.levels]
