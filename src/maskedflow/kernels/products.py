"""The products of a program, as functions of the address of what they work on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from .tile import PANEL_BYTES, SHAPES, SUMS, add_product, dots, jit, jit_as, pointer, size_of


@jit
def product(address: int, like: Any) -> None:
    """Adds a product of weights and rows of a panel to other rows of it, see `add_product`."""
    a, row_step, column_step, rows, b, c, n, width, start, start_step, gate = carray(
        pointer(address, 0), (11,)
    )
    step = PANEL_BYTES // size_of(like)
    add_product(
        like, a, row_step, column_step, rows, b, step, c, step, n, width, start, start_step, gate
    )


def _pieces(shape: tuple[int, int], dot: Any) -> Any:
    """Sums up a gradient from some panels, in pieces of a shape, see `tile.dots`.

    Slopes, values, their step from panel to panel, and gradients are addresses and bytes, the steps
    of the gradient numbers. If there is `more` than this, it is added.
    """
    high, wide = shape

    def run(address: int, like: Any) -> None:
        a, b, step, c, row_step, column_step, rows, columns, panels, more = carray(
            pointer(address, 0), (10,)
        )
        sums = np.full(SUMS, like)
        size = size_of(like)
        for row in range(0, rows, high):
            for column in range(0, columns, wide):
                left = a + row * PANEL_BYTES
                right = b + column * PANEL_BYTES
                place = c + (row * row_step + column * column_step) * size
                whole = row + high <= rows and column + wide <= columns
                if whole and column_step == 1 and not more:
                    dot(like, left, right, step, place, row_step * size, panels)
                    continue
                dot(like, left, right, step, sums.ctypes.data, wide * size, panels)
                for u in range(min(high, rows - row)):
                    for v in range(min(wide, columns - column)):
                        one = place + (u * row_step + v * column_step) * size
                        target = carray(pointer(one, like), (1,))
                        total = sums[u * wide + v]
                        if more:
                            total += target[0]
                        target[0] = total

    return jit_as(f"_pieces_{high}_{wide}", run)


tall, oblong, square = (_pieces(*both) for both in zip(SHAPES, dots, strict=True))
