"""Runs programs on panels, and sums up gradients."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from maskedflow.kernels import ONES, ZEROS, Code, Panel

from .activations import activate, slope
from .maps import differentiate, evaluate, invert
from .tile import DOT_COLUMNS, DOT_ROWS, PANEL_BYTES, add_product, dot, fetch_add, jit, pointer, size_of

#: What stands where in the integers that describe a job. The *vectors* are addresses of parameters,
#: or of their gradients. A *load* or a *store* is (address, step, first row, rows, panel, index):
#: numbers of sample j, a row of a matrix, go to rows of a panel, or back; for a load the row is
#: `index[j]` if there is an index.
#: Threads take from `NEXT`, a panel or a gradient, and from `SLOT`, one of the `PLACES` to work in;
#: `BUSY` is how many of them found something to do. Panels that are kept, each in a place of its
#: own, are values (`KEEP`) or slopes (`KEEP_SLOPES`).
Job = IntEnum(
    "Job",
    "NEXT SLOT BUSY BATCH PROGRAM OPERATIONS REALS REAL_COUNT VECTORS LOADS LOAD_COUNT "
    " STORES STORE_COUNT HEIGHT VALUES KEEP SLOPES KEEP_SLOPES PLACES HOLES HOLE_COUNT",
    start=0,
)
SIZE = len(Job)
#: The integers of an operation, see `staircase.Operation`.
WORDS = 12
#: The panels that a sum of a gradient takes in at a time: their rows stay in a cache.
SPAN = 16


@jit
def integers(address: int, *shape: int) -> Any:
    """The integers at an address."""
    return carray(pointer(address, np.int64(0)), shape)


@jit
def _load(like: Any, address: int, step: int, index: int, first: int, count: int, panel: Any) -> None:
    """Fills a panel with the columns of some rows of a matrix, and what is beyond with zeros."""
    rows, width = panel.shape
    chosen = integers(index, first + count)
    for low in range(0, rows, 16):
        high = min(low + 16, rows)
        for j in range(count):
            place = chosen[first + j] if index else first + j
            source = carray(pointer(address + place * step * size_of(like), like), (rows,))
            for row in range(low, high):
                panel[row, j] = source[row]
        for row in range(low, high):
            for j in range(count, width):
                panel[row, j] = 0


@jit
def _store(like: Any, address: int, step: int, first: int, count: int, panel: Any) -> None:
    """The opposite of `_load`."""
    rows = panel.shape[0]
    matrix = carray(pointer(address, like), (first + count, step))
    for low in range(0, rows, 16):
        high = min(low + 16, rows)
        for j in range(count):
            target = matrix[first + j]
            for row in range(low, high):
                target[row] = panel[row, j]


@jit
def _fill(like: Any, panel: Any, row: int, rows: int, step: int, values: int) -> None:
    numbers = carray(pointer(values, like), (rows,))
    for place in range(rows):
        value = like
        if values == ONES:
            value += 1
        elif values != ZEROS:
            value += numbers[place]
        panel[row + place * step] = value


@jit
def clear(address: int, like: Any) -> None:
    """Sets the runs of numbers to zero that a job calls holes."""
    job = integers(address, SIZE)
    addresses = integers(job[Job.VECTORS], 1 << 20)
    holes = integers(job[Job.HOLES], job[Job.HOLE_COUNT], 3)
    for layer, start, count in holes:
        vector = carray(pointer(addresses[layer], like), (start + count,))
        for place in range(start, start + count):
            vector[place] = 0


@jit
def _run_program(like: Any, job: Any, values: Any, slopes: Any) -> None:
    """The program of a job, on one panel of values and one of slopes."""
    program = integers(job[Job.PROGRAM], job[Job.OPERATIONS], WORDS)
    weights = integers(job[Job.VECTORS], 1 << 20)
    reals = carray(pointer(job[Job.REALS], 0.0), (job[Job.REAL_COUNT],))
    size = size_of(like)
    width = values.shape[1]
    for number in range(program.shape[0]):
        code, where, out, rows, source, columns, layer, offset, row_step, column_step, kind, real = (
            program[number]
        )
        panel = slopes if where == Panel.SLOPES else values
        if code == Code.FILL:
            address = weights[layer] if layer >= 0 else layer
            _fill(like, panel, out, rows, row_step, address)
        elif code == Code.PRODUCT:
            base = panel.ctypes.data
            add_product(
                like,
                weights[layer] + offset * size,
                row_step,
                column_step,
                rows,
                base + source * PANEL_BYTES,
                width,
                base + out * PANEL_BYTES,
                width,
                columns,
            )
        elif code == Code.COPY:
            _copy(panel, out, source, rows)
        elif code == Code.ADD:
            above = _rows(panel, out, rows)
            below = _rows(panel, source, rows)
            for j in range(above.size):
                above[j] += below[j]
        elif code == Code.ACTIVATE:
            _copy(panel, out, source, rows)
            activate(kind, reals[real], _rows(panel, out, rows))
        elif code == Code.SLOPE:
            _copy(panel, out, source, rows)
            totals, units = _rows(values, columns, rows), _rows(values, layer, rows)
            slope(kind, reals[real], totals, units, _rows(panel, out, rows))
        elif code == Code.EVALUATE or code == Code.INVERT:
            _copy(panel, out, source, rows)
            for feature in range(rows):
                top = layer + feature * columns
                phi, x, ladj = panel[top : top + columns], panel[out + feature], panel[offset]
                if code == Code.EVALUATE:
                    evaluate(kind, phi, reals[real:], x, ladj)
                else:
                    invert(kind, phi, reals[real:], x, ladj)
        elif code == Code.DIFFERENTIATE:
            _copy(slopes, out, source, rows)
            for feature in range(rows):
                top = layer + feature * columns
                phi, dphi = values[top : top + columns], slopes[top : top + columns]
                x, dx = values[out + feature], slopes[out + feature]
                differentiate(kind, phi, reals[real:], x, slopes[offset], dphi, dx)
        elif code == Code.SOLVE:
            _solve(program[number], reals[real:], values, slopes)
        elif code == Code.NORMAL:
            _normal(values, out, source, rows)
        else:
            for feature in range(rows):
                x, dx, upstream = values[source + feature], slopes[source + feature], slopes[out]
                for j in range(width):
                    dx[j] = -upstream[j] * x[j]


@jit
def _rows(panel: Any, first: int, count: int) -> Any:
    """Some rows of a panel as one."""
    width = panel.shape[1]
    return panel.reshape(panel.size)[first * width : (first + count) * width]


@jit
def _copy(panel: Any, out: int, source: int, rows: int) -> None:
    if out != source:
        above, below = _rows(panel, out, rows), _rows(panel, source, rows)
        for j in range(above.size):
            above[j] = below[j]


@jit
def _normal(panel: Any, out: int, source: int, rows: int) -> None:
    """Adds the log-density of N(0, I)."""
    total = panel[out]
    half = total.dtype.type(0.5)
    constant = total.dtype.type(rows * 0.5 * math.log(2 * math.pi))
    for row in range(source, source + rows):
        x = panel[row]
        for j in range(x.size):
            total[j] -= half * x[j] * x[j]
    for j in range(total.size):
        total[j] -= constant


@jit
def _solve(operation: Any, constants: Any, values: Any, slopes: Any) -> None:
    """Slopes by z, from those by x that are complete, and with them those by the parameters.

    Where z = f(x | phi), x is a function of z and phi, with dx = (dz - f_phi dphi) / f_x; and the
    ladj of the inverse is that of f, with the other sign.
    """
    _, _, out, rows, source, columns, layer, offset, _, _, kind, _ = operation
    width = values.shape[1]
    one = np.ones(width, values.dtype)
    nothing = np.zeros(width, values.dtype)
    upstream = np.empty(width, values.dtype)
    for j in range(width):
        upstream[j] = -slopes[offset, j]
    for feature in range(rows):
        top = layer + feature * columns
        phi, dphi = values[top : top + columns], slopes[top : top + columns]
        x, dx = values[source + feature], slopes[source + feature]
        by_phi = np.empty((columns, width), values.dtype)
        steep = one.copy()
        differentiate(kind, phi, constants, x, nothing, by_phi, steep)
        direct = nothing.copy()
        differentiate(kind, phi, constants, x, upstream, dphi, direct)
        dz = slopes[out + feature]
        for j in range(width):
            dz[j] = (dx[j] + direct[j]) / steep[j]
        for place in range(columns):
            for j in range(width):
                dphi[place, j] -= dz[j] * by_phi[place, j]


@jit
def run_panels(address: int, like: Any) -> None:
    """Takes panels until there are none left."""
    job = integers(address, SIZE)
    slot = fetch_add(address + 8 * Job.SLOT, 1)
    if slot >= job[Job.PLACES]:  # the others do it all
        return
    width = PANEL_BYTES // size_of(like)
    batch, height = job[Job.BATCH], job[Job.HEIGHT]
    loads = integers(job[Job.LOADS], job[Job.LOAD_COUNT], 6)
    stores = integers(job[Job.STORES], job[Job.STORE_COUNT], 6)
    taken = 0
    while True:
        number = fetch_add(address + 8 * Job.NEXT, 1)
        first = number * width
        if first >= batch:
            fetch_add(address + 8 * Job.BUSY, min(taken, 1))
            return
        taken += 1
        count = min(width, batch - first)
        place = number if job[Job.KEEP] else slot
        start = job[Job.VALUES] + place * height * PANEL_BYTES
        values = carray(pointer(start, like), (height, width))
        slopes = values
        if job[Job.SLOPES]:
            place = number if job[Job.KEEP_SLOPES] else slot
            start = job[Job.SLOPES] + place * height * PANEL_BYTES
            slopes = carray(pointer(start, like), (height, width))
        for source, step, row, rows, where, index in loads:
            panel = slopes if where == Panel.SLOPES else values
            _load(like, source, step, index, first, count, panel[row : row + rows])
        _run_program(like, job, values, slopes)
        for target, step, row, rows, where, _ in stores:
            panel = slopes if where == Panel.SLOPES else values
            _store(like, target, step, first, count, panel[row : row + rows])


@jit
def _gradient(like: Any, job: Any, operation: Any, sums: Any) -> None:
    """The slopes by some weights, from all panels: rows of slopes times rows of values."""
    vectors = integers(job[Job.VECTORS], 1 << 20)
    _, _, out, rows, source, columns, layer, offset, row_step, column_step, _, _ = operation
    width = PANEL_BYTES // size_of(like)
    panels = (job[Job.BATCH] + width - 1) // width
    step = job[Job.HEIGHT] * PANEL_BYTES
    size = size_of(like)
    for start in range(0, max(panels, 1), SPAN):
        span = min(SPAN, panels - start)
        for row in range(0, rows, DOT_ROWS):
            a = job[Job.SLOPES] + start * step + (out + row) * PANEL_BYTES
            b = job[Job.VALUES] + start * step + source * PANEL_BYTES
            c = vectors[layer] + (offset + row * row_step) * size
            whole = columns if start == 0 and column_step == 1 and row + DOT_ROWS <= rows else 0
            whole -= whole % DOT_COLUMNS
            for column in range(0, whole, DOT_COLUMNS):
                dot(like, a, b, step, c, row_step * size, span)
                b += DOT_COLUMNS * PANEL_BYTES
                c += DOT_COLUMNS * size
            for column in range(whole, columns, DOT_COLUMNS):
                dot(like, a, b, step, sums.ctypes.data, DOT_COLUMNS * size, span)
                b += DOT_COLUMNS * PANEL_BYTES
                high, wide = min(DOT_ROWS, rows - row), min(DOT_COLUMNS, columns - column)
                for u in range(high):
                    place = c + (u * row_step + (column - whole) * column_step) * size
                    target = carray(pointer(place, like), (1 + (wide - 1) * column_step,))
                    for v in range(wide):
                        total = sums[u * DOT_COLUMNS + v]
                        if start:
                            total += target[v * column_step]
                        target[v * column_step] = total


@jit
def sum_gradients(address: int, like: Any) -> None:
    """Takes gradients until there are none left."""
    job = integers(address, SIZE)
    operations = integers(job[Job.PROGRAM], job[Job.OPERATIONS], WORDS)
    sums = np.full(DOT_ROWS * DOT_COLUMNS, like)
    taken = 0
    while True:
        number = fetch_add(address + 8 * Job.NEXT, 1)
        if number >= job[Job.OPERATIONS]:
            fetch_add(address + 8 * Job.BUSY, min(taken, 1))
            return
        taken += 1
        _gradient(like, job, operations[number], sums)
