"""Steps of a training: loss, gradient, clipping and Adam, on flat vectors of parameters."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from .run import SIZE as JOB_SIZE
from .run import Job, integers
from .tile import call, fetch_add, jit, pointer

#: What stands where in the integers that describe steps. `RUN_PANELS` to `UPDATE` are addresses of
#: compiled functions: linked into another, they would be compiled once more. `PANELS` and `SUMS`
#: are the jobs of a step, `DONE` is how many steps were taken, `LAST` how many there are: one that
#: is not finite ends them. `BOUNDS` are the first and the last position of each one's rows in the
#: `ORDER`, and the rows of the whole batch, if these are a part of one; `RATES` its learning rate.
#: A step writes its loss and the norm of its gradient. `UPSTREAM` and `LOG_PROB` are vectors of a
#: batch, `NUMBERS` the parameters, their gradients and Adam's two moments, so `MANY` each; `PARTS`
#: is where `measure` writes. `SETTINGS` are `Setting`s. `TAKEN` is how many steps Adam had taken
#: before. `WEIGHTS` are the rows' own; all alike if 0.
Steps = IntEnum(
    "Steps",
    "NEXT RUN_PANELS SUM_GRADIENTS CLEAR MEASURE UPDATE PANELS SUMS DONE LAST TAKEN BOUNDS ORDER "
    "RATES LOSSES NORMS UPSTREAM LOG_PROB NUMBERS MANY PARTS SETTINGS WEIGHTS",
    start=0,
)
SIZE = len(Steps)
#: The reals of a step; `RATE` and `SCALE`, what gradients are multiplied with, are of the newest.
Setting = IntEnum("Setting", "CLIP DECAY BETA1 BETA2 EPSILON RATE SCALE", start=0)
SETTINGS = len(Setting)
#: The numbers that a thread measures, or updates, at a time.
CHUNK = 2**14
#: The sums of a chunk that go on side by side.
LANES = 16


@jit
def _chunk(address: int) -> tuple[int, int]:
    """Takes the next numbers that nobody has taken: the first and the end, which may be none."""
    first = CHUNK * fetch_add(address + 8 * Steps.NEXT, 1)
    return first, min(first + CHUNK, integers(address, SIZE)[Steps.MANY])


@jit
def measure(address: int, like: Any) -> None:
    """Writes the sum of squares of each chunk of gradients."""
    job = integers(address, SIZE)
    parts = carray(pointer(job[Steps.PARTS], 0.0), (job[Steps.MANY] // CHUNK + 1,))
    gradient = carray(pointer(integers(job[Steps.NUMBERS], 4)[1], like), (job[Steps.MANY],))
    sums = np.empty(LANES)
    while True:
        first, end = _chunk(address)
        if first >= end:
            return
        sums[:] = 0
        whole = first + (end - first) // LANES * LANES
        for start in range(first, whole, LANES):
            for lane in range(LANES):
                one = float(gradient[start + lane])
                sums[lane] += one * one
        for place in range(whole, end):
            one = float(gradient[place])
            sums[place - whole] += one * one
        parts[first // CHUNK] = sums.sum()


@jit
def update(address: int, like: Any) -> None:
    """Adam's step, with a penalty on squares, of each chunk of parameters."""
    job = integers(address, SIZE)
    many = job[Steps.MANY]
    reals = carray(pointer(job[Steps.SETTINGS], 0.0), (SETTINGS,))
    vectors = integers(job[Steps.NUMBERS], 4)
    numbers = carray(pointer(vectors[0], like), (many,))
    gradients = carray(pointer(vectors[1], like), (many,))
    means = carray(pointer(vectors[2], like), (many,))
    squares = carray(pointer(vectors[3], like), (many,))
    real = numbers.dtype.type
    taken = job[Steps.TAKEN]
    scale, decay = real(reals[Setting.SCALE]), real(reals[Setting.DECAY])
    keep, share = real(reals[Setting.BETA2]), real(1 - reals[Setting.BETA2])
    pull = real(1 - reals[Setting.BETA1])
    rate = real(reals[Setting.RATE] / (1 - reals[Setting.BETA1] ** taken))
    root = real(1 / math.sqrt(1 - reals[Setting.BETA2] ** taken))
    epsilon = real(reals[Setting.EPSILON])
    while True:
        first, end = _chunk(address)
        if first >= end:
            return
        n, g = numbers[first:end], gradients[first:end]
        m, v = means[first:end], squares[first:end]
        for place in range(n.size):
            slope = g[place] * scale + decay * n[place]
            mean = m[place] + pull * (slope - m[place])
            square = keep * v[place] + share * slope * slope
            m[place], v[place] = mean, square
            n[place] -= rate * mean / (math.sqrt(square) * root + epsilon)


@jit
def begin(address: int, like: Any) -> None:
    """Prepares the next step: its rows, and the slope of the mean by each one's log-density."""
    job = integers(address, SIZE)
    panels, sums = integers(job[Steps.PANELS], JOB_SIZE), integers(job[Steps.SUMS], JOB_SIZE)
    loads = integers(panels[Job.LOADS], panels[Job.LOAD_COUNT], 6)
    start, end, whole = integers(job[Steps.BOUNDS], job[Steps.LAST], 3)[job[Steps.DONE]]
    batch = end - start
    for load in loads:
        if load[5]:
            load[5] = job[Steps.ORDER] + 8 * start
    upstream = carray(pointer(job[Steps.UPSTREAM], like), (batch,))
    upstream[:] = upstream.dtype.type(-1 / whole)
    if job[Steps.WEIGHTS]:
        order = integers(job[Steps.ORDER], end)
        weights = carray(pointer(job[Steps.WEIGHTS], like), (1,))
        for row in range(batch):
            upstream[row] *= weights[order[start + row]]
    panels[Job.BATCH] = sums[Job.BATCH] = batch
    panels[Job.NEXT] = panels[Job.SLOT] = 0
    sums[Job.NEXT] = job[Steps.NEXT] = 0


@jit
def tally(address: int, like: Any) -> None:
    """Writes the loss, or the rows' share in that of the whole batch."""
    job = integers(address, SIZE)
    step, last = job[Steps.DONE], job[Steps.LAST]
    start, end, whole = integers(job[Steps.BOUNDS], last, 3)[step]
    log_prob = carray(pointer(job[Steps.LOG_PROB], like), (end - start,))
    total = 0.0
    upstream = carray(pointer(job[Steps.UPSTREAM], like), (end - start,))
    for row in range(log_prob.size):
        weighted = -whole * upstream[row] * log_prob[row]
        total += weighted if job[Steps.WEIGHTS] else log_prob[row]
    carray(pointer(job[Steps.LOSSES], 0.0), (last,))[step] = -total / whole


@jit
def judge(address: int, like: Any) -> None:
    """Writes the norm, and how to update; no further step if that or the loss is not finite."""
    job = integers(address, SIZE)
    step, last = job[Steps.DONE], job[Steps.LAST]
    parts = carray(pointer(job[Steps.PARTS], 0.0), (job[Steps.MANY] // CHUNK + 1,))
    norm = math.sqrt(parts.sum())
    loss = carray(pointer(job[Steps.LOSSES], 0.0), (last,))[step]
    carray(pointer(job[Steps.NORMS], 0.0), (last,))[step] = norm
    if not (math.isfinite(loss) and math.isfinite(norm)):
        job[Steps.LAST] = step
        return
    reals = carray(pointer(job[Steps.SETTINGS], 0.0), (SETTINGS,))
    reals[Setting.RATE] = carray(pointer(job[Steps.RATES], 0.0), (last,))[step]
    reals[Setting.SCALE] = min(1.0, reals[Setting.CLIP] / (norm + 1e-6))
    job[Steps.TAKEN] += 1
    job[Steps.NEXT] = 0


@jit
def take_steps(address: int, like: Any) -> None:
    """Takes one step after another, on this thread alone."""
    job = integers(address, SIZE)
    while job[Steps.DONE] < job[Steps.LAST]:
        begin(address, like)
        call(job[Steps.RUN_PANELS], job[Steps.PANELS])
        call(job[Steps.SUM_GRADIENTS], job[Steps.SUMS])
        call(job[Steps.CLEAR], job[Steps.SUMS])
        call(job[Steps.MEASURE], address)
        tally(address, like)
        judge(address, like)
        if job[Steps.DONE] < job[Steps.LAST]:
            call(job[Steps.UPDATE], address)
            job[Steps.DONE] += 1
