"""Runs programs on panels."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import carray  # type: ignore[attr-defined]

from maskedflow.kernels import GROUP, Code

from .activations import activate, slope
from .cache import compile_cached
from .maps import invert
from .tile import PANEL_BYTES, add_product, fetch_add, jit, pointer, size_of

#: What stands where in the integers that describe a job. A *load* or a *store* is (address, step,
#: first row, rows, from where): numbers of sample j, a row of a matrix, go to the rows of a panel,
#: or back; `from where` is 1 for the panels of `OTHER`. A *fill* is (first row, rows, address of a
#: bias or 0, address of a matrix to be added or 0, its step). The *vectors* are addresses: of the
#: weights of each layer, or of what an *item*, described at `_gradient`, writes. Threads take from
#: `NEXT`, a panel or an item, and from `SLOT`, one of the `PLACES` to work in; `BUSY` is how many
#: of them found something to do.
Job = IntEnum(
    "Job",
    "NEXT SLOT BUSY BATCH PROGRAM OPERATIONS VECTORS LOADS LOAD_COUNT FILLS FILL_COUNT STORES "
    "STORE_COUNT WORK HEIGHT KEEP PLACES OTHER OTHER_HEIGHT ACTIVATION UNIVARIATE REALS REAL_COUNT "
    "PARAMETERS LADJ ITEMS ITEM_COUNT SOURCES HOLES HOLE_COUNT",
    start=0,
)
SIZE = len(Job)


#: Compiled as a part of its caller: once, and not once more for each that calls.
_inline: Any = numba.njit(inline="always", error_model="numpy")


@jit
def _integers(address: int, *shape: int) -> Any:
    return carray(pointer(address, np.int64(0)), shape)


@jit
def _load(like: Any, address: int, step: int, first: int, count: int, panel: Any) -> None:
    """Fills a panel with the columns of some rows of a matrix, and what is beyond with zeros."""
    rows, width = panel.shape
    matrix = carray(pointer(address, like), (first + count, step))
    for low in range(0, rows, 16):
        high = min(low + 16, rows)
        for j in range(count):
            source = matrix[first + j]
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
def _fill(like: Any, panel: Any, bias: int, added: int, step: int, first: int, count: int) -> None:
    rows, width = panel.shape
    if added:
        _load(like, added, step, first, count, panel)
    if bias:
        values = carray(pointer(bias, like), (rows,))
        for row in range(rows):
            value = values[row]
            if added:
                for j in range(width):
                    panel[row, j] += value
            else:
                for j in range(width):
                    panel[row, j] = value
    elif not added:
        panel[:] = 0


@jit
def _clear(address: int, like: Any) -> None:
    """Sets the runs of numbers to zero that a job calls holes."""
    job = _integers(address, SIZE)
    addresses = _integers(job[Job.VECTORS], 1 << 20)
    holes = _integers(job[Job.HOLES], job[Job.HOLE_COUNT], 3)
    for layer, start, count in holes:
        vector = carray(pointer(addresses[layer], like), (start + count,))
        for place in range(start, start + count):
            vector[place] = 0


@jit
def _copy(flat: Any, out: int, source: int, count: int) -> None:
    if out != source:
        for j in range(count):
            flat[out + j] = flat[source + j]


@_inline
def _run_program(like: Any, job: Any, work: Any, other: Any) -> None:
    """The program of a job, on one panel."""
    program = _integers(job[Job.PROGRAM], job[Job.OPERATIONS], 9)
    weights = _integers(job[Job.VECTORS], 1 << 20)
    reals = carray(pointer(job[Job.REALS], 0.0), (job[Job.REAL_COUNT],))
    size = size_of(like)
    width = work.shape[1]
    base = work.ctypes.data
    parameters = job[Job.PARAMETERS]
    flat = work.reshape(work.size)
    flat_other = other.reshape(other.size)
    for number in range(program.shape[0]):
        code, out, rows, source, columns, layer, offset, row_step, column_step = program[number]
        if code == Code.PRODUCT:
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
        elif code == Code.ACTIVATE:
            total = flat[out * width : (out + rows) * width]
            _copy(flat, out * width, source * width, rows * width)
            activate(job[Job.ACTIVATION], reals[0], total)
        elif code == Code.ADD:
            above = flat[out * width : (out + rows) * width]
            below = flat[source * width : (source + rows) * width]
            for j in range(above.size):
                above[j] += below[j]
        elif code == Code.INVERT:
            ladj = work[job[Job.LADJ]]
            for feature in range(rows):
                top = source + feature * parameters
                phi = work[top : top + parameters]
                invert(job[Job.UNIVARIATE], phi, reals[1:], work[out + feature], ladj)
        elif code == Code.SLOPE:
            gradient = flat[out * width : (out + rows) * width]
            _copy(flat, out * width, source * width, rows * width)
            slope(
                job[Job.ACTIVATION],
                reals[0],
                flat_other[columns * width : (columns + rows) * width],
                flat_other[layer * width : (layer + rows) * width],
                gradient,
            )
        else:
            for feature in range(rows):
                solution = work[out + feature]
                adjoint = work[source + feature]
                steep = work[columns + feature]
                for j in range(width):
                    solution[j] = (solution[j] - adjoint[j]) / steep[j]
                for top in range(layer + feature * parameters, layer + (feature + 1) * parameters):
                    phi = work[top]
                    for j in range(width):
                        phi[j] *= solution[j]


@jit
def _panels(address: int, like: Any) -> None:
    """Takes panels until there are none left."""
    job = _integers(address, SIZE)
    slot = fetch_add(address + 8 * Job.SLOT, 1)
    if slot >= job[Job.PLACES]:  # the others do it all
        return
    width = PANEL_BYTES // size_of(like)
    batch = job[Job.BATCH]
    loads = _integers(job[Job.LOADS], job[Job.LOAD_COUNT], 5)
    fills = _integers(job[Job.FILLS], job[Job.FILL_COUNT], 5)
    stores = _integers(job[Job.STORES], job[Job.STORE_COUNT], 5)
    height, other_height = job[Job.HEIGHT], job[Job.OTHER_HEIGHT]
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
        start = job[Job.WORK] + place * height * PANEL_BYTES
        work = carray(pointer(start, like), (height, width))
        other = work
        if job[Job.OTHER]:
            start = job[Job.OTHER] + number * other_height * PANEL_BYTES
            other = carray(pointer(start, like), (other_height, width))
        for row, rows, bias, added, step in fills:
            _fill(like, work[row : row + rows], bias, added, step, first, count)
        for source, step, row, rows, _ in loads:
            _load(like, source, step, first, count, work[row : row + rows])
        _run_program(like, job, work, other)
        for target, step, row, rows, where in stores:
            panel = other if where else work
            _store(like, target, step, first, count, panel[row : row + rows])


@jit
def _gradient(like: Any, job: Any, item: Any, sums: Any) -> None:
    """The gradient of some rows of a layer's weights in some columns, over all samples.

    An item is (layer, first operation, end, first column, end); the operations are the layer's
    products in the forward direction. A first column below zero means the gradient of the bias.
    """
    program = _integers(job[Job.PROGRAM], job[Job.OPERATIONS], 9)
    gradients = _integers(job[Job.VECTORS], 1 << 20)
    sources = _integers(job[Job.SOURCES], 1 << 20, 2)
    width = PANEL_BYTES // size_of(like)
    batch, height = job[Job.BATCH], job[Job.HEIGHT]
    panels = (batch + width - 1) // width
    layer, start, end, first_column, last_column = item
    if first_column < 0:
        _bias_gradient(like, job, start, end, gradients[layer])
        return
    source, first = sources[layer]
    for number in range(start, end):
        _, out, rows, low, columns, _, offset, row_step, _ = program[number]
        low -= first
        target = carray(pointer(gradients[layer], like), (offset + rows * row_step,))
        for column in range(first_column, last_column, width):
            left, right = max(low, column), min(low + columns, column + width)
            if left >= right:
                continue
            sums[:] = 0
            strip = source + column // width * batch * PANEL_BYTES
            for panel in range(panels):
                add_product(
                    like,
                    job[Job.WORK] + (panel * height + out) * PANEL_BYTES,
                    width,
                    1,
                    rows,
                    strip + panel * width * PANEL_BYTES,
                    width,
                    sums.ctypes.data,
                    width,
                    min(width, batch - panel * width),
                )
            for row in range(rows):
                begin = offset + row * row_step - low
                target[begin + left : begin + right] = sums[row, left - column : right - column]


@jit
def _bias_gradient(like: Any, job: Any, out: int, rows: int, address: int) -> None:
    width = PANEL_BYTES // size_of(like)
    bias = carray(pointer(address, like), (rows,))
    bias[:] = 0
    for panel in range((job[Job.BATCH] + width - 1) // width):
        place = job[Job.WORK] + (panel * job[Job.HEIGHT] + out) * PANEL_BYTES
        slopes = carray(pointer(place, like), (rows, width))
        for row in range(rows):
            total = like
            for j in range(width):
                total += slopes[row, j]
            bias[row] += total


@jit
def _gradients(address: int, like: Any) -> None:
    """Takes items until there are none left."""
    job = _integers(address, SIZE)
    items = _integers(job[Job.ITEMS], job[Job.ITEM_COUNT], 5)
    sums = np.full((GROUP, PANEL_BYTES // size_of(like)), like)
    taken = 0
    while True:
        number = fetch_add(address + 8 * Job.NEXT, 1)
        if number >= job[Job.ITEM_COUNT]:
            fetch_add(address + 8 * Job.BUSY, min(taken, 1))
            return
        taken += 1
        _gradient(like, job, items[number], sums)


def _clear32(address: int) -> None:
    _clear(address, np.float32(0))


def _clear64(address: int) -> None:
    _clear(address, np.float64(0))


def _panels32(address: int) -> None:
    _panels(address, np.float32(0))


def _panels64(address: int) -> None:
    _panels(address, np.float64(0))


def _gradients32(address: int) -> None:
    _gradients(address, np.float32(0))


def _gradients64(address: int) -> None:
    _gradients(address, np.float64(0))


_FUNCTIONS: dict[tuple[str, int], Callable[[int], None]] = {
    ("clear", 4): _clear32,
    ("clear", 8): _clear64,
    ("panels", 4): _panels32,
    ("panels", 8): _panels64,
    ("gradients", 4): _gradients32,
    ("gradients", 8): _gradients64,
}

#: Held while something is compiled, and while a process forks: a child could never take a lock
#: whose holder has stayed behind.
_compiling = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_compiling.acquire,
        after_in_child=_compiling.release,
        after_in_parent=_compiling.release,
    )


def entry(name: str, size: int) -> int:
    """The address of a compiled function of a job's address, for numbers of `size` bytes.

    "clear" sets the holes of a job to zero, "panels" runs its program, "gradients" its items.
    """
    with _compiling:
        return _address(name, size)


@cache
def _address(name: str, size: int) -> int:
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    stamp = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return compile_cached(_FUNCTIONS[name, size], stamp)
