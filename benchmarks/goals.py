"""What was measured, beside what was to be reached, as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pages import number
from sides import CELLS, SIDES, Configuration

#: Seconds by configuration, side and cell.
Seconds = Mapping[tuple[str, str, str], float]


@dataclass(frozen=True)
class Goal:
    """A ratio of two times, and what it should be.

    Args:
        configuration: The configuration of both.
        over: The side and the cell of the numerator.
        under: The side and the cell of the denominator.
        sign: Whether the ratio should be "<=" or ">=" the goal.
        goal: What is to be reached.
        stretch: What would be better.
    """

    configuration: str
    over: tuple[str, str]
    under: tuple[str, str]
    sign: str
    goal: float
    stretch: float

    def __str__(self) -> str:
        return f"{self.configuration}: {' '.join(self.over)} / {' '.join(self.under)}"

    def ratio(self, seconds: Seconds) -> float | None:
        """The ratio of the medians; None if one was not measured."""
        over = seconds.get((self.configuration, *self.over))
        under = seconds.get((self.configuration, *self.under))
        return None if over is None or under is None else over / under


def _own(configuration: str, over: str, under: str, goal: float, stretch: float) -> Goal:
    return Goal(configuration, ("maskedflow", over), ("maskedflow", under), "<=", goal, stretch)


def _zuko(configuration: str, cell: str, goal: float, stretch: float) -> Goal:
    return Goal(configuration, ("zuko", cell), ("maskedflow", cell), ">=", goal, stretch)


GOALS = (
    _own("MNIST", "sample", "log_prob", 1.5, 1.0),
    _own("MNIST-1000", "sample", "log_prob", 1.5, 1.0),
    _own("BSDS300", "sample", "log_prob", 1.5, 1.0),
    _zuko("MNIST", "sample", 1500, 3000),
    _zuko("BSDS300", "sample", 60, 100),
    _zuko("POWER", "sample", 4, 8),
    _zuko("MNIST", "log_prob", 2, 3),
    _zuko("BSDS300", "log_prob", 1.3, 2),
    _zuko("POWER", "log_prob", 1.3, 2),
    _zuko("MNIST", "train step", 2.5, 4),
    _zuko("BSDS300", "train step", 1.4, 2),
    _zuko("POWER", "train step", 1.5, 3),
    _own("BSDS300", "rsample + backward", "log_prob + backward", 4, 2),
)

#: The goal and the stretch of the worst error of sample -> latent.
ERROR_GOAL = 1e-4, 1e-5


def verdict(value: float, sign: str, goal: float, stretch: float) -> str:
    """How a value compares with its goal, which NaN never meets."""
    flip = -1 if sign == ">=" else 1
    if flip * value <= flip * stretch:
        return "met, and the stretch"
    return "met" if flip * value <= flip * goal else "NOT MET"


def goals_table(seconds: Seconds, errors: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """A row for each goal that was measured, below a head."""
    rows = [["time / time", "measured", "goal", "stretch", ""]]
    for goal in GOALS:
        value = goal.ratio(seconds)
        if value is not None:
            rows.append(
                goal_row(str(goal), number(value), value, goal.sign, goal.goal, goal.stretch)
            )
    for name, found in errors.items():
        worst = math.nan if any(map(math.isnan, found.values())) else max(found.values())
        rows.append(goal_row(f"{name}: worst error", f"{worst:.1e}", worst, "<=", *ERROR_GOAL))
    return rows


def goal_row(
    name: str, shown: str, value: float, sign: str, goal: float, stretch: float
) -> list[str]:
    """What was measured, as it is shown, beside its goal."""
    limits = (f"{sign} {limit:,g}" for limit in (goal, stretch))
    return [name, shown, *limits, verdict(value, sign, goal, stretch)]


def times_table(shape: Configuration, seconds: Seconds) -> list[list[str]]:
    """Seconds of each side, and in brackets how often ours fits into a peer's."""
    rows = [["seconds", *SIDES]]
    for cell in CELLS:
        row = [cell]
        own = seconds.get((shape.name, "maskedflow", cell))
        for side in SIDES:
            value = seconds.get((shape.name, side, cell))
            if value is None:
                row.append("")
                continue
            sign = "~" if shape.scale(side, cell) > 1 else ""
            ratio = "" if own is None or side == "maskedflow" else f" ({number(value / own)})"
            row.append(f"{sign}{number(value)}{ratio}")
        if any(row[1:]):
            rows.append(row)
    return rows


def memory_table(
    shape: Configuration, memory: Mapping[tuple[str, str, str], float]
) -> list[list[str]]:
    """Megabytes of each side at the peak of a cell."""
    rows = [["MB", *SIDES]]
    for cell in shape.cells:
        values = [memory.get((shape.name, side, cell)) for side in SIDES]
        marks = ["~" if shape.scale(side, cell) > 1 else "" for side in SIDES]
        row = [
            "" if value is None else f"{mark}{value / 1e6:,.0f}"
            for mark, value in zip(marks, values, strict=True)
        ]
        if any(row):
            rows.append([cell, *row])
    return rows
