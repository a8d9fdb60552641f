"""Matrices of correlations: tables whose cells have colours, or pictures of large ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskedflow.plot.figures import new_figure
from maskedflow.plot.ticks import PlainFormatter, signed
from maskedflow.report.format import clipped

from .figures import Picture, embed

TABLED, WRITTEN, NAMED = 40, 12, 24
"""The most rows of a table, of one whose cells are numbers, and names beside a picture."""

RED, BLUE, DEEPEST = "#b2182b", "#2166ac", 150
"""Colours of what is above and below 0, and the most alpha, of 255, on which text can be read."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """A cell of a table: the text in it, its colour, and what it is."""

    text: str
    colour: str
    title: str


@dataclass(frozen=True)
class Cells:
    """A matrix as a table, shape (D, D), whose rows and columns have names."""

    names: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str


def matrix_shown(
    values: Matrix, names: Sequence[str], what: str, least: float = 0.05
) -> Cells | Picture:
    """A matrix as a table whose names and numbers are read by pointing at them.

    Of more than 40 columns it is a picture.

    Args:
        values: The matrix, shape (D, D).
        names: Of its rows, which are those of its columns.
        what: What it shows, as a caption.
        least: What the deepest colours stand for, if no number is larger.

    Example:
        >>> cells = matrix_shown(np.array([[1.0, -0.004], [-0.5, 1.0]]), ["age", "pay"], "A matrix")
        >>> cells.rows[0][1].text, cells.rows[1][0].colour, cells.rows[1][0].title
        ('0.00', '#2166ac4b', 'pay, age: −0.500')
    """
    bound = max(least, float(np.abs(values).max()))
    if len(names) > TABLED:
        return _picture(values, names, what, bound)

    def cell(i: int, j: int) -> Cell:
        x = float(values[i, j])
        text = signed(f"{x:.2f}") if len(names) <= WRITTEN else ""
        alpha = round(DEEPEST * abs(x) / bound)
        title = f"{names[i]}, {names[j]}: {signed(f'{x:.3f}')}"
        return Cell(text, f"{RED if x > 0 else BLUE}{alpha:02x}", title)

    places = range(len(names))
    return Cells(names, [[cell(i, j) for j in places] for i in places], what)


def _picture(values: Matrix, names: Sequence[str], what: str, bound: float) -> Picture:
    """A matrix, blue from -`bound` and red to `bound`, with some names and a scale beside it."""
    figure = new_figure(5.2, 4.2)
    axes = figure.subplots()
    image = axes.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
    scale = figure.colorbar(image, ax=axes)
    scale.ax.yaxis.set_major_formatter(PlainFormatter())
    scale.ax.tick_params(labelsize=8)
    places = range(0, len(names), math.ceil(len(names) / NAMED))
    shown = [clipped(names[i], 12) for i in places]
    axes.set_xticks(places, shown, rotation=90, fontsize=7)
    axes.set_yticks(places, shown, fontsize=7)
    beside = np.abs(values - np.diag(np.diag(values)))
    i, j = (int(k) for k in np.unravel_index(beside.argmax(), values.shape))
    size = signed(f"{values[i, j]:.3f}")
    largest = f"the largest beside the diagonal is {size}, of {names[i]} and {names[j]}"
    return embed(figure, f"{what}; {largest}", what)
