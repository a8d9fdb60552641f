"""Columns of a table whose values repeat: the grids that they are on, and what float32 loses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.transforms import Dequantize

from .grid import find_grid

__all__ = ["Cells", "find_cells", "needs_float64"]

LOOKED_AT = 20_000
"""The rows that are looked at first: whether many share a value shows in a part of them."""

SHARED = 3
"""The rows that share a value, on average, of a column that is discrete."""

ATOM, ATOM_ROWS = 0.05, 10
"""The least share and the least number of rows at one value that no continuous density has."""

LOST = 1e-3
"""How much of a column's deviation float32 may round away."""

EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Cells:
    """The cells of the values of each feature: that of x reaches from x to x + step.

    Args:
        step: The width of a feature's cells, shape `(features,)`; 0 if it has none.
        low: The least value of each feature.
        high: The greatest.
    """

    step: Tensor
    low: Tensor
    high: Tensor

    def dequantize(self) -> Dequantize:
        """The transform that fills them with noise."""
        return Dequantize(self.step, self.low, self.high)

    def moments(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the standard deviation with noise in the cells, from those without."""
        step = self.step.to(loc)
        return loc + step / 2, (scale.square() + step.square() / 12).sqrt()


def find_cells(
    x: Tensor, low: Tensor, high: Tensor, columns: tuple[str, ...]
) -> tuple[Cells | None, tuple[str, ...]]:
    """Finds the features whose values are on grids and shared by many rows.

    Args:
        x: Rows in random order, shape `(n, features)`.
        low: The least value of each feature in all rows.
        high: The greatest.
        columns: The features' names.

    Returns:
        Their cells, None if no feature has any; and a note on these, and on those features that
        have values in common without a grid, or one value in many rows.

    Example:
        >>> x = torch.tensor([[0.0, 0.5], [1.0, 0.1], [1.0, 0.2], [2.0, 0.4]]).repeat(5, 1)
        >>> x[:, 1] += torch.linspace(0, 0.01, 20)
        >>> cells, notes = find_cells(x, x.amin(0), x.amax(0), ("n", "x"))
        >>> cells.step
        tensor([1., 0.], dtype=torch.float64)
        >>> notes
        ('n holds values on a grid and is dequantised: ...',)
    """
    steps = torch.zeros(len(columns), dtype=torch.float64)
    without = []
    for i, name in enumerate(columns):
        values, counts = np.unique(x[:LOOKED_AT, i].numpy(), return_counts=True)
        rows = int(counts.sum())
        if len(values) > 1 and rows >= SHARED * len(values):
            grid = find_grid(_decimal(np.unique(x[:, i].numpy())))
            steps[i] = 0.0 if grid is None else grid.step
        peak = int(counts.max(initial=0))
        atom = peak >= max(ATOM * rows, ATOM_ROWS)
        if not steps[i] and len(values) > 1 and (atom or rows >= SHARED * len(values)):
            without.append(name)
    notes = []
    found = [name for name, step in zip(columns, steps.tolist(), strict=True) if step]
    if found:
        notes.append(
            f"{_listed(found)} values on a grid and {_are(found)} dequantised: the density of a "
            "value is the probability of its cell by the cell's width (--continuous leaves them as "
            "they are; --flow auto gives values probabilities)"
        )
    if without:
        notes.append(
            f"{_listed(without)} values that many rows share, where a continuous density has no "
            "bound; --flow auto gives them probabilities"
        )
    ends = low.double(), high.double()
    return (Cells(steps, *ends) if found else None), tuple(notes)


def needs_float64(x: Tensor) -> bool:
    """Whether float32 blurs a column that varies: by its spread, or that of values it repeats.

    Args:
        x: Rows in random order, float32 or float64.
    """
    for column in x.unbind(1):
        size = column.abs().max().item()
        spread = column.double().std(correction=0).item() if column.amin() < column.amax() else 0.0
        if x.dtype == torch.float64 and not spread:
            continue
        if LOST * spread < EPS * size:
            return True
        values = np.unique(column[:LOOKED_AT].numpy())
        repeated = len(column[:LOOKED_AT]) >= SHARED * len(values)
        if repeated and len(values) > 1 and 4 * EPS * size > np.diff(values).min():
            return True
    return False


def _decimal(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """The decimal numbers that were rounded to these: the shortest ones."""
    text = values.astype(str) if values.dtype == np.float32 else values
    return text.astype(np.float64)


def _listed(names: list[str]) -> str:
    """The first names, and a verb."""
    if len(names) == 1:
        return f"{names[0]} holds"
    shown = ", ".join(names[:5])
    return f"{shown} hold" if len(names) <= 5 else f"{shown} and {len(names) - 5} others hold"


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
