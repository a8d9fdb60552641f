"""Rows of a panel, of a length that the compiler knows.

Loops over them have no remainder, and rows of one array need no check whether they overlap.
"""

from __future__ import annotations

from typing import Any

from numba import carray  # type: ignore[attr-defined]

from .tile import PANEL_BYTES, jit, pointer, size_of


@jit
def width_of(rows: Any) -> int:
    """The number of samples."""
    width: int = PANEL_BYTES // size_of(rows.dtype.type(0))
    return width


@jit
def fixed(rows: Any, width: int) -> Any:
    """The same rows, which somebody else keeps."""
    place = pointer(rows.ctypes.data, rows.dtype.type(0))
    return carray(place, (rows.shape[0], width))
