"""Runs programs on panels, and sums up gradients."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from maskedflow.kernels import AS_IT_IS, AT_VALUES, ONES, ZEROS, Code, Panel

from .tile import (
    PANEL_BYTES,
    call,
    fetch_add,
    fills_row,
    jit,
    pointer,
    size_of,
)

#: What stands where in the integers that describe a job. The *vectors* are addresses of parameters,
#: or of their gradients, and the *functions* those of activations and maps, one for each operation.
#: A *load* or a *store* is (address, step, first row, rows, panel, index): numbers of sample j, a
#: row of a matrix, go to rows of a panel, or back; for a load the row is `index[j]` if there is an
#: index. Threads take from `NEXT`, a panel or a gradient, and from `SLOT`, one of the `PLACES` to
#: work in. Panels that are kept, each in a place of its own, are values (`KEEP`) or slopes
#: (`KEEP_SLOPES`). `FRESH` values are not those of a run before. `PRODUCT` to `SQUARE` are
#: addresses of `kernels.products`: linked into others, they would be compiled once more at each
#: level.
Job = IntEnum(
    "Job",
    "NEXT SLOT BATCH PROGRAM OPERATIONS FUNCTIONS REALS REAL_COUNT VECTORS LOADS LOAD_COUNT "
    "STORES STORE_COUNT FRESH HEIGHT VALUES KEEP SLOPES KEEP_SLOPES PLACES HOLES HOLE_COUNT "
    "PRODUCT TALL OBLONG SQUARE",
    start=0,
)
SIZE = len(Job)
#: The integers of an operation, see `staircase.Operation`.
WORDS = 14
#: The panels that a sum of a gradient takes in at a time: their rows stay in a cache.
SPAN = 16


@jit
def integers(address: int, *shape: int) -> Any:
    """The integers at an address."""
    return carray(pointer(address, np.int64(0)), shape)


@jit
def _load(
    like: Any, address: int, step: int, index: int, first: int, count: int, panel: Any
) -> None:
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
def _fill(like: Any, panel: Any, row: int, rows: int, step: int, values: int, apart: int) -> None:
    numbers = carray(pointer(values, like), (rows * apart,))
    for place in range(rows):
        value = like
        if values == ONES:
            value += 1
        elif values != ZEROS:
            value += numbers[place * apart]
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
def _run_program(like: Any, job: Any, values: Any, slopes: Any, count: int) -> None:
    """The program of a job, on a panel of values and one of slopes, with so many samples."""
    program = integers(job[Job.PROGRAM], job[Job.OPERATIONS], WORDS)
    weights = integers(job[Job.VECTORS], 1 << 20)
    functions = integers(job[Job.FUNCTIONS], job[Job.OPERATIONS])
    reals = job[Job.REALS]
    nothing = reals + 8 * job[Job.REAL_COUNT]
    arguments = np.empty(11, np.int64)
    size = size_of(like)
    width = values.shape[1]
    for number in range(program.shape[0]):
        (
            code,
            where,
            out,
            rows,
            source,
            columns,
            layer,
            offset,
            row_step,
            column_step,
            real,
            start,
            begin,
            gate,
        ) = program[number]
        panel = slopes if where == Panel.SLOPES else values
        base = panel.ctypes.data
        if code == Code.FILL:
            address = weights[layer] + begin * size if layer >= 0 else layer
            _fill(like, panel, out, rows, row_step, address, column_step)
        elif code == Code.PRODUCT:
            arguments[0] = weights[layer] + offset * size
            arguments[1] = row_step
            arguments[2] = column_step
            arguments[3] = rows
            arguments[4] = base + source * PANEL_BYTES
            arguments[5] = base + out * PANEL_BYTES
            arguments[6] = columns
            arguments[7] = count * size
            # What is after the last real is a zero.
            arguments[8] = weights[start] + begin * size if start >= 0 else nothing
            if start == AS_IT_IS:
                arguments[8] = 0
            arguments[9] = min(max(start + 1, 0), 1)
            arguments[10] = gate
            if gate >= AT_VALUES:
                arguments[10] = values.ctypes.data + (gate - AT_VALUES) * PANEL_BYTES
            call(job[Job.PRODUCT], arguments.ctypes.data)
        elif code == Code.COPY:
            _copy(panel, out, source, rows)
        elif code == Code.ADD:
            above = _rows(panel, out, rows)
            below = _rows(panel, source, rows)
            for j in range(above.size):
                above[j] += below[j]
        elif code == Code.NEGATE:
            above = _rows(panel, out, rows)
            below = _rows(panel, source, rows)
            for j in range(above.size):
                above[j] = -below[j]
        elif code == Code.MASK:
            there = values[source]
            for row in range(out, out + rows):
                masked = panel[row]
                for j in range(width):
                    masked[j] = masked[j] if there[j] != 0 else there[j]
        elif code in (Code.ACTIVATE, Code.SLOPE):
            _copy(panel, out, source, rows)
            arguments[1] = rows * width
            arguments[2] = reals + real * 8
            if code == Code.ACTIVATE:
                arguments[0] = base + out * PANEL_BYTES
            else:
                arguments[0] = values.ctypes.data + columns * PANEL_BYTES
                arguments[3] = values.ctypes.data + layer * PANEL_BYTES
                arguments[4] = base + out * PANEL_BYTES
            call(functions[number], arguments.ctypes.data)
        elif code == Code.NORMAL:
            _normal(values, out, source, rows)
        elif code == Code.NORMAL_SLOPE:
            upstream = slopes[out]
            for feature in range(rows):
                x, dx = values[source + feature], slopes[source + feature]
                for j in range(width):
                    dx[j] = -upstream[j] * x[j]
        else:
            if code != Code.SOLVE:
                _copy(panel, out, source, rows)
            arguments[1] = columns
            arguments[2] = reals + real * 8
            for feature in range(rows):
                phi = (layer + feature * columns) * PANEL_BYTES
                data = (source if code == Code.SOLVE else out) + feature
                arguments[0] = values.ctypes.data + phi
                arguments[3] = values.ctypes.data + data * PANEL_BYTES
                arguments[4] = base + offset * PANEL_BYTES
                arguments[5] = base + phi
                arguments[6] = base + data * PANEL_BYTES
                if code == Code.SOLVE:
                    _solve(functions[number], arguments, slopes, out + feature, source + feature)
                else:
                    call(functions[number], arguments.ctypes.data)


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
def _solve(function: int, arguments: Any, slopes: Any, out: int, source: int) -> None:
    """Slopes by a latent, from those by its feature that are complete, and by its parameters.

    Where z = f(x | phi), x is a function of z and phi, with dx = (dz - f_phi dphi) / f_x; and the
    ladj of the inverse is that of f, with the other sign. The arguments are as for `differentiate`.
    """
    width, columns = slopes.shape[1], arguments[1]
    like = slopes[out, 0]
    total = carray(pointer(arguments[4], like), (width,))
    dphi = carray(pointer(arguments[5], like), (columns, width))
    ladj = np.zeros((2, width), slopes.dtype)
    direct = np.zeros((2, width), slopes.dtype)
    by_phi = np.empty((columns, width), slopes.dtype)
    for j in range(width):
        ladj[1, j] = -total[j]
        direct[0, j] = 1
    arguments[4], arguments[5] = ladj[0].ctypes.data, by_phi.ctypes.data
    arguments[6] = direct[0].ctypes.data
    call(function, arguments.ctypes.data)
    arguments[4], arguments[5] = ladj[1].ctypes.data, dphi.ctypes.data
    arguments[6] = direct[1].ctypes.data
    call(function, arguments.ctypes.data)
    dx, dz = slopes[source], slopes[out]
    for j in range(width):
        dz[j] = (dx[j] + direct[1, j]) / direct[0, j]
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
    while True:
        number = fetch_add(address + 8 * Job.NEXT, 1)
        first = number * width
        if first >= batch:
            return
        count = min(width, batch - first)
        place = number if job[Job.KEEP] else slot
        start = job[Job.VALUES] + place * height * PANEL_BYTES
        values = carray(pointer(start, like), (height, width))
        slopes = values
        if job[Job.SLOPES]:
            place = number if job[Job.KEEP_SLOPES] else slot
            start = job[Job.SLOPES] + place * height * PANEL_BYTES
            slopes = carray(pointer(start, like), (height, width))
        # Products leave out what has no sample, and gradients are sums of everything.
        if not fills_row(count * size_of(like)):
            if job[Job.FRESH]:
                values[:] = 0
            if job[Job.SLOPES]:
                slopes[:] = 0
        for source, step, row, rows, where, index in loads:
            panel = slopes if where == Panel.SLOPES else values
            _load(like, source, step, index, first, count, panel[row : row + rows])
        _run_program(like, job, values, slopes, count)
        for target, step, row, rows, where, _ in stores:
            panel = slopes if where == Panel.SLOPES else values
            _store(like, target, step, first, count, panel[row : row + rows])


@jit
def _gradient(like: Any, job: Any, operation: Any, arguments: Any) -> None:
    """The slopes by some weights, from all panels: rows of slopes times rows of values."""
    vectors = integers(job[Job.VECTORS], 1 << 20)
    _, _, out, rows, source, columns, layer, offset, row_step, column_step, _, _, _, _ = operation
    width = PANEL_BYTES // size_of(like)
    panels = (job[Job.BATCH] + width - 1) // width
    step = job[Job.HEIGHT] * PANEL_BYTES
    size = size_of(like)
    for start in range(0, max(panels, 1), SPAN):
        span = min(SPAN, panels - start)
        arguments[0] = job[Job.SLOPES] + start * step + out * PANEL_BYTES
        arguments[1] = job[Job.VALUES] + start * step + source * PANEL_BYTES
        arguments[2] = step
        arguments[3] = vectors[layer] + offset * size
        arguments[4] = row_step
        arguments[5] = column_step
        arguments[6] = rows
        arguments[7] = columns
        arguments[8] = span
        arguments[9] = start > 0
        shape = Job.TALL if columns == 1 else Job.OBLONG if columns == 2 else Job.SQUARE
        call(job[shape], arguments.ctypes.data)


@jit
def sum_gradients(address: int, like: Any) -> None:
    """Takes gradients until there are none left."""
    job = integers(address, SIZE)
    operations = integers(job[Job.PROGRAM], job[Job.OPERATIONS], WORDS)
    arguments = np.empty(10, np.int64)
    while True:
        number = fetch_add(address + 8 * Job.NEXT, 1)
        if number >= job[Job.OPERATIONS]:
            return
        _gradient(like, job, operations[number], arguments)
