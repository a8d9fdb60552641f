"""What a density of mixed tables works on: rows as tensors, and how their columns are laid out."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Rows of a mixed table as tensors, in three parts: codes, values and angles.

    A value or an angle that is not observed (missing, or at an atom, as its state code says) is 0.

    Args:
        codes: Integers below `Layout.levels`, int64, shape `(n, K)`.
        values: Numbers, float64, shape `(n, D)`. On a grid they are multiples of a cell's width.
        observed: Where there is a value, bool, shape `(n, D)`.
        angles: Radians in [-pi, pi), float64, shape `(n, A)`.
        angles_observed: Where there is an angle, bool, shape `(n, A)`.
        impossible: Rows of density 0, whatever the rest says, bool, shape `(n,)`.
    """

    codes: Tensor
    values: Tensor
    observed: Tensor
    angles: Tensor
    angles_observed: Tensor
    impossible: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: slice | Tensor) -> Rows:
        return Rows(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True)
class Layout:
    """How the columns of a table became the K codes, D values and A angles of its `Rows`.

    The state of a value or angle is a code: 0 for an ordinary value, then one level for a missing
    one if the column may miss values, then one for each atom.

    Args:
        levels: The number of levels of each code, K of them.
        value_state: The code that is the state of each value; None if it is always observed.
        angle_state: The same of each angle.
        steps: The width of the cells of each value, 0 if it is continuous. The value `v` on a grid
            stands for the cell [v, v + step), which its bounds include.
        lows: The lower bound of each value, exclusive, or None.
        highs: The upper bound alike.
        log_units: What to add to each log-density, in nats, so that it is one per unit of the
            columns: the logarithm of radians per unit, summed over the angles that are always
            observed.
        code_units: What to add for each level of each code: radians per unit for the state of an
            angle that is there; on a grid, whose numbers have a density too, their probability over
            the step of the column, the logarithm of the cell's width over this step for a number,
            and minus that of the step for an atom.
        origins: The number that the value 0 of each column stands for; all 0 if there are none.
        left_out: The cells of each column that its values are counted without, those of its atoms,
            counted from the origin; none if empty.
        edges: How far a bound of each value bends the line that it is on, 0 if all of it, as logs
            do; all 0 if empty.
    """

    levels: tuple[int, ...]
    value_state: tuple[int | None, ...]
    angle_state: tuple[int | None, ...]
    steps: tuple[float, ...]
    lows: tuple[float | None, ...]
    highs: tuple[float | None, ...]
    log_units: float = 0.0
    code_units: tuple[tuple[float, ...], ...] = ()
    origins: tuple[float, ...] = ()
    left_out: tuple[tuple[int, ...], ...] = ()
    edges: tuple[float, ...] = ()

    def units(self, codes: Tensor) -> Tensor:
        """What to add to the log-density of each row in all, float64, shape `(n,)`.

        Example:
            >>> layout = Layout((2,), (), (0,), (), (), (), 1.0, ((0.5, 0.0),))
            >>> layout.units(torch.tensor([[0], [1]]))
            tensor([1.5000, 1.0000], dtype=torch.float64)
        """
        total = torch.full((len(codes),), self.log_units, dtype=torch.float64)
        for code, units in zip(codes.unbind(-1), self.code_units, strict=False):
            total += torch.tensor(units, dtype=torch.float64)[code.cpu()]
        return total.to(codes.device)
