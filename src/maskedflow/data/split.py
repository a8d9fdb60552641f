"""The rows of one part of a data set, and how much each counts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.transforms.normalization import weighted_moments

Array = NDArray[Any]


@dataclass(frozen=True)
class Split:
    """The rows of one part of a data set.

    Args:
        x: The data in their own units, shape `(n, features)`: uint8 for images, float32 otherwise,
            or float64 where float32 would not tell numbers apart. Windows of a time series have
            shape `(n, steps, features)`.
        context: The condition of each row, shape `(n, context)` or `(n, steps, context)`, or None.
            For a flow with an embedding network any shape `(n, ...)`: series, images, token ids.
        weight: How much each row counts, shape `(n,)`, from 0 and finite; all alike if None. Only
            ratios matter: a row of weight 2 is in all means as two rows.
        checked: Whether all numbers are known to be finite, as those of a file are; training looks
            at others.

    Raises:
        ValueError: If `x` has another shape, the numbers of rows differ, or a weight is negative or
            not finite.

    Example:
        >>> len(Split(torch.zeros(5, 2)))
        5
        >>> split = Split(torch.tensor([[0.0], [3.0]]), weight=torch.tensor([2.0, 1.0]))
        >>> split.mean(split.x[:, 0]), round(split.effective, 2)
        (1.0, 1.8)
    """

    x: Tensor
    context: Tensor | None = None
    weight: Tensor | None = None
    checked: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.x.ndim not in (2, 3):
            raise ValueError(f"x: expected shape (n, features), got {tuple(self.x.shape)}")
        if self.context is not None and self.context.shape[:1] != self.x.shape[:1]:
            raise ValueError(
                f"context: expected shape ({len(self.x)}, context), got {tuple(self.context.shape)}"
            )

        if self.weight is not None:
            check_weight(self.weight, len(self.x))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | Tensor) -> Split:
        context, weight = self.context, self.weight
        return Split(
            self.x[rows],
            None if context is None else context[rows],
            None if weight is None else weight[rows],
        )

    @cached_property
    def mass(self) -> Tensor:
        """The weights in float64, 1 where none are given."""
        if self.weight is None:
            return torch.ones(len(self.x), dtype=torch.float64, device=self.x.device)
        return self.weight.double()

    @property
    def effective(self) -> float:
        """The number of rows of equal weight that are worth as much, see :func:`effective`."""
        return float(len(self)) if self.weight is None else effective(self.weight)

    def mean(self, values: Tensor) -> float:
        """The mean of a number for each row, such as its log-density, as exact as can be."""
        # torch's mean of many numbers depends, in its last digit, on the number of threads.
        if self.weight is None:
            return math.fsum(values.tolist()) / len(values)
        kept = self.weight > 0  # elsewhere a density may be 0
        mass = self.mass[kept]
        return math.fsum((mass * values.to(mass)[kept]).tolist()) / math.fsum(mass.tolist())

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """The mean and standard deviation of each feature, see :func:`location_and_scale`."""
        return location_and_scale(self.x, self.weight)

    @cached_property
    def context_moments(self) -> tuple[Tensor, Tensor]:
        """Those of each column of the context, which has to be there."""
        assert self.context is not None
        return location_and_scale(self.context, self.weight)

    def in_float32(self) -> Split:
        """The same rows, rounded to float32."""
        context = None if self.context is None else self.context.float()
        return Split(self.x.float(), context, self.weight)


def check_weight(weight: Tensor, rows: int) -> None:
    """Refuses weights, by a ValueError, that are not one for each row, from 0 and finite."""
    if weight.shape != (rows,):
        raise ValueError(f"weight: expected shape ({rows},), got {tuple(weight.shape)}")
    bad = ~((weight >= 0) & (weight < torch.inf))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"weight: expected finite numbers from 0, got {weight[row].item()} in row {row}"
        )


def evenly_spaced(rows: int, most: int) -> Tensor:
    """The numbers of so many of some rows at most, the first and the last among them.

    In whole numbers: of 20 million rows float32 would round the last one to one that is not there.

    Example:
        >>> evenly_spaced(10, 4)
        tensor([0, 3, 6, 9])
    """
    some = min(rows, most)
    return torch.arange(some) * (rows - 1) // max(some - 1, 1)


def effective(weight: Tensor) -> float:
    r"""The number of rows of equal weight that are worth as much as rows of these weights.

    .. math:: n_{eff} = \frac{(\sum_i w_i)^2}{\sum_i w_i^2}

    References:
        Survey Sampling (Kish, 1965)

    Example:
        >>> round(effective(torch.tensor([1.0, 1.0, 0.5])), 2)
        2.78
    """
    share = weight.double() / weight.max()  # whose squares are far from the least float
    return float(share.sum().square() / share.square().sum())


def location_and_scale(x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The weighted mean and standard deviation of each column, in float32 or x's own float64.

    A constant column gets scale 1: it is only centred, and nothing is divided by zero.
    """
    if weight is not None:
        x, weight = x[weight > 0], weight[weight > 0]
    # Column by column: a float64 copy of a large table would double its memory twice over.
    moments = [weighted_moments(column.double(), weight) for column in x.unbind(1)]
    variance, mean = (torch.stack(values) for values in zip(*moments, strict=True))
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    scale = variance.sqrt().to(dtype)
    # The computed variance of a constant need not be exactly zero; a tiny one may round to it.
    scale[(x.amax(0) == x.amin(0)) | (scale == 0)] = 1
    return mean.to(dtype), scale


def columns_of(split: Split) -> list[Array]:
    """The columns of features and of the context, in float32, as flows see them."""
    parts = [split.x] if split.context is None else [split.x, split.context]
    return [column.float().numpy() for part in parts for column in part.unbind(1)]
