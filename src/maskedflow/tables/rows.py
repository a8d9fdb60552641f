"""A table as the density sees it: codes, numbers and angles."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Layout", "Rows"]


@dataclass(frozen=True)
class Rows:
    """The rows of a table, as numbers.

    Attributes:
        codes: The level of each code column, int64, with shape (n, K).
        values: The numbers, float64, with shape (n, D); 0 where they are not observed.
        observed: Whether a number is there, with shape (n, D).
        angles: The angles in radians, float64 in [-pi, pi), with shape (n, A); 0 where they are
            not observed.
        angles_observed: Whether an angle is there, with shape (n, A).
        impossible: Whether the row lies where the density is 0, with shape (n,).
    """

    codes: Tensor
    values: Tensor
    observed: Tensor
    angles: Tensor
    angles_observed: Tensor
    impossible: Tensor


@dataclass(frozen=True)
class Layout:
    """What the columns of :class:`Rows` are.

    Attributes:
        levels: The number of levels of each code column, K of them.
        value_state: For each value column the code column of its state, of which level 0 is an
            ordinary value; None if the value is always there.
        angle_state: For each angle column alike.
        steps: The width of a value column's cells, 0 for a continuous one.
        lows: The lower bound of each value column, None if there is none.
        highs: The upper bound of each value column, None if there is none.
        log_units: What is added to a log-density in these columns for one in the user's.
    """

    levels: tuple[int, ...]
    value_state: tuple[int | None, ...]
    angle_state: tuple[int | None, ...]
    steps: tuple[float, ...]
    lows: tuple[float | None, ...]
    highs: tuple[float | None, ...]
    log_units: float = 0.0
