"""Columns of a table whose values repeat: the grids that they are on, and what float32 loses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.columns.grid import find_grid
from maskedflow.columns.numeric import ATOM, ATOM_ROWS, SHARED
from maskedflow.transforms import Dequantize

LOOKED_AT = 20_000
"""The rows that are looked at first."""

LOST = 1e-3
"""How much of a column's deviation float32 may round away."""

EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Cells:
    """The cells of the values of each feature: that of x reaches from x to x + step.

    The step is 0 where a feature has none; low and high are its least and its greatest value.
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
    x: Tensor, order: Tensor, columns: Sequence[str], continuous: Collection[str] = ()
) -> tuple[Cells | None, list[str]]:
    """Finds the cells of features whose values are on grids and shared by many rows, if any.

    Looks at the first rows in a random order; and names those features that have values in common
    without a grid, or one value in many rows. Those that are known to be `continuous` have neither.

    Example:
        >>> x = torch.tensor([[0.0, 0.5], [1.0, 0.1], [1.0, 0.2], [2.0, 0.4]]).repeat(5, 1)
        >>> x[:, 1] += torch.linspace(0, 0.01, 20)
        >>> cells, without = find_cells(x, torch.randperm(20), ("n", "x"))
        >>> cells.step, without
        (tensor([1., 0.], dtype=torch.float64), [])
    """
    steps = torch.zeros(len(columns), dtype=torch.float64)
    without = []
    for i, name in enumerate(columns):
        if name in continuous:
            continue
        values, counts = np.unique(x[order[:LOOKED_AT], i].numpy(), return_counts=True)
        rows = int(counts.sum())
        shared = len(values) > 1 and rows >= SHARED * len(values)
        if shared:
            grid = find_grid(_decimal(np.unique(x[:, i].numpy())))
            steps[i] = 0.0 if grid is None else grid.step
        atom = counts.max(initial=0) >= max(ATOM * rows, ATOM_ROWS)
        if not steps[i] and (shared or atom):
            without.append(name)
    if not steps.any():
        return None, without
    ends = (torch.from_numpy(_decimal(end.numpy())) for end in x.aminmax(dim=0))
    return Cells(steps, *ends), without


def notes_on(columns: Sequence[str], cells: Cells | None, without: list[str]) -> list[str]:
    """What should be known of features with values that many rows share, from `find_cells`."""
    notes = []
    if cells is not None:
        found = [name for name, step in zip(columns, cells.step.tolist(), strict=True) if step]
        are = "is" if len(found) == 1 else "are"
        notes.append(
            f"{_listed(found)} values on a grid and {are} dequantised: the density of a value is "
            "the probability of its cell by the cell's width (--continuous leaves them as they "
            "are; --flow auto gives values probabilities)"
        )
    if without:
        notes.append(
            f"{_listed(without)} values that many rows share, where a continuous density has no "
            "bound (--flow auto gives values of rows probabilities)"
        )
    return notes


def needs_float64(x: Tensor, order: Tensor) -> bool:
    """Whether float32 blurs a column that varies: by its spread, or that of values it repeats."""
    for column in x.unbind(1):
        size = column.abs().max().item()
        spread = column.double().std(correction=0).item() if column.amin() < column.amax() else 0.0
        if x.dtype == torch.float64 and not spread:
            continue
        if LOST * spread < EPS * size:
            return True
        some = column[order[:LOOKED_AT]].numpy()
        values = np.unique(some)
        repeated = len(values) > 1 and len(some) >= SHARED * len(values)
        if repeated and 4 * EPS * size > np.diff(values).min():
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
