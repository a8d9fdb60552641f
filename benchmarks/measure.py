"""The rows of an ordinary table as codes and numbers, and the measure that all scores are in.

A *code* is text, or one of a few numbers; that its cell is missing is one more level. A *number*
has a density per unit; one on a grid has the probability of its cell over the step. Where a number
may be missing, that it is has a code of its own. Levels, steps and what may be missing are told
from the whole table, for each method the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from ordinary import is_number, step_of

TESTED = 4_000

Numbers = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """A column: of codes if it has levels, else of numbers."""

    name: str
    levels: tuple[Any, ...]
    step: float
    missing: bool


@dataclass(frozen=True)
class Rows:
    """Rows of a table.

    Args:
        codes: Shape (n, codes); first those of columns, then whether numbers are missing.
        levels: How many levels each code has.
        numbers: Shape (n, numbers), NaN where they are missing.
        noised: The same with noise of one step, uniform and centred.
        steps: Of the grid of each number, 0 if there is none.
        units: Shape (n,): what a log-probability of codes lacks to be one per unit of the columns.
    """

    codes: Codes
    levels: tuple[int, ...]
    numbers: Numbers
    noised: Numbers
    steps: tuple[float, ...]
    units: Numbers

    def __len__(self) -> int:
        return len(self.codes)


class Split:
    """A table's rows, a fifth of them to test with, in an order of their own."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.columns = [_column(name, frame[name]) for name in frame]
        order = np.random.default_rng(0).permutation(len(frame))
        self._test, self._train = order[: len(frame) // 5][:TESTED], order[len(frame) // 5 :]

    @property
    def frames(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The training and the test rows as they are."""
        rows = (self._train, self._test)
        train, test = (self.frame.iloc[part].reset_index(drop=True) for part in rows)
        return train, test

    @property
    def train(self) -> Rows:
        """The training rows."""
        return self._part(self._train)

    @property
    def test(self) -> Rows:
        """The test rows."""
        return self._part(self._test)

    @cached_property
    def noise(self) -> Numbers:
        """What numbers on a grid get where a method takes them for continuous: (n, columns)."""
        steps = np.array([column.step for column in self.columns])
        return (np.random.default_rng(1).random(self.frame.shape) - 0.5) * steps

    def noised(self, name: str) -> pd.Series[float]:
        """A column of the frame with its noise."""
        place = self.frame.columns.get_loc(name)
        return self.frame[name] + self.noise[:, place]

    def _part(self, rows: Codes) -> Rows:
        codes, levels, numbers, noised, steps, absent = [], [], [], [], [], []
        units = np.zeros(len(self.frame))
        for column in self.columns:
            cells = self.frame[column.name]
            missing = cells.isna().to_numpy()
            if column.levels:
                code = cells.map({level: i for i, level in enumerate(column.levels)})
                codes.append(code.fillna(len(column.levels)).to_numpy().astype(np.int64))
                levels.append(len(column.levels) + column.missing)
                if column.step:
                    units -= np.where(missing, 0.0, math.log(column.step))
            else:
                numbers.append(cells.to_numpy(np.float64))
                noised.append(self.noised(column.name).to_numpy(np.float64))
                steps.append(column.step)
                if column.missing:
                    absent.append(missing.astype(np.int64))
        return Rows(
            np.stack([*codes, *absent], 1)[rows]
            if codes or absent
            else np.zeros((len(rows), 0), int),
            (*levels, *[2] * len(absent)),
            np.stack(numbers, 1)[rows],
            np.stack(noised, 1)[rows],
            tuple(steps),
            units[rows],
        )


def _column(name: str, cells: pd.Series[Any]) -> Column:
    there = cells.dropna()
    levels = () if is_number(cells) else tuple(sorted(there.unique()))
    step = 0.0 if there.dtype == object else step_of(there.to_numpy())
    return Column(name, levels, step, len(there) < len(cells))
