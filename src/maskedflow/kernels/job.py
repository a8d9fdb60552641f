"""Describes jobs to the compiled functions, and has them run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskedflow.kernels import Panel

from .entries import entry
from .run import Job
from .steps import Steps
from .threads import Team, run_on
from .tile import PANEL_BYTES, SUMS

Integers = np.ndarray[Any, np.dtype[np.int64]]

_local = threading.local()
_STEPS = {one.name.lower(): int(one) for one in Steps}


def panel_width(like: Tensor) -> int:
    """The number of samples in a panel."""
    return PANEL_BYTES // like.element_size()


def scratch(name: str, count: int, like: Tensor) -> Tensor:
    """Memory for intermediate results, which the next call of that name gets again.

    New memory would come from the system page by page, which takes as long as the arithmetic.
    """
    kept: dict[torch.dtype, Tensor] = vars(_local).setdefault(name, {})
    buffer = kept.get(like.dtype)
    if buffer is None or len(buffer) < count:
        buffer = kept[like.dtype] = torch.empty(count, dtype=like.dtype)
    return buffer


class Panels:
    """A batch as panels of so many rows, in the dtype of `like`.

    If they are `kept` after a run, each has a place of its own; otherwise each thread has one, of
    `places`. They are in the scratch memory of a name, or in new memory if that is None.
    """

    def __init__(
        self, batch: int, height: int, like: Tensor, *, kept: bool, memory: str | None = None
    ) -> None:
        # An odd number, so that the same row of all panels is not in the same lines of a cache.
        self.batch, self.height, self.kept = batch, height | 1, kept
        width = panel_width(like)
        self.count = -(-batch // width)
        self.places = self.count if kept else min(torch.get_num_threads(), self.count)
        # A piece of a gradient may begin with the last row.
        size = (self.places * self.height + SUMS) * width
        self.memory = (
            torch.empty(size, dtype=like.dtype) if memory is None else scratch(memory, size, like)
        )


def addresses(tensors: Sequence[Tensor]) -> Integers:
    """Where dense tensors are, for the vectors of a job."""
    return np.array([one.data_ptr() for one in tensors], np.int64)


def run_panels(
    program: Any,
    vectors: Integers,
    values: Panels,
    slopes: Panels | None = None,
    *,
    loads: Sequence[tuple[Tensor, int, Panel]],
    stores: Sequence[tuple[Tensor, int, Panel]],
) -> None:
    """Runs a program on all panels of a batch.

    It reads its vectors, after zeros are written where masks forbid a weight. `loads` are matrices
    (samples, numbers), the first row that takes their columns, and of what; `stores` the same of
    matrices that take rows.
    """
    size = values.memory.element_size()
    job, _kept = panels_job(program, vectors, values, slopes, loads=loads, stores=stores)
    if len(program.holes):
        run_on(1, entry("clear", size), job)
    share("panels", size, job, program, values.batch, values.places)


def panels_job(
    program: Any,
    vectors: Integers,
    values: Panels,
    slopes: Panels | None = None,
    *,
    loads: Sequence[tuple[Tensor, int, Panel]],
    stores: Sequence[tuple[Tensor, int, Panel]],
    ordered: int = 0,
) -> tuple[Integers, Any]:
    """The integers of a job that runs a program, and what must not be forgotten before it ends.

    The first `ordered` loads take rows in an order, which the job gets when it is known.
    """
    dense = [(_dense_rows(matrix), row, where) for matrix, row, where in loads]
    loaded = np.array(
        [(*_matrix(*one), number < ordered) for number, one in enumerate(dense)], np.int64
    )
    stored = np.array([(*_matrix(m, row, where), 0) for m, row, where in stores], np.int64)
    job = _job(program, values.memory.element_size())
    job[Job.BATCH] = values.batch
    job[Job.VECTORS] = vectors.ctypes.data
    job[Job.LOADS], job[Job.LOAD_COUNT] = loaded.ctypes.data, len(loaded)
    job[Job.STORES], job[Job.STORE_COUNT] = stored.ctypes.data, len(stored)
    job[Job.HEIGHT] = values.height
    job[Job.FRESH] = any(where is Panel.VALUES for _, _, where in loads)
    job[Job.VALUES], job[Job.KEEP] = values.memory.data_ptr(), values.kept
    job[Job.PLACES] = values.places
    if slopes is not None:
        job[Job.SLOPES], job[Job.KEEP_SLOPES] = slopes.memory.data_ptr(), slopes.kept
        job[Job.PLACES] = min(values.places, slopes.places)
    return job, (dense, loaded, stored, vectors)


def sum_gradients(program: Any, vectors: Integers, values: Panels, slopes: Panels) -> None:
    """Writes gradients to vectors: what a program sums up, and zero where masks forbid a weight."""
    size = values.memory.element_size()
    job = sums_job(program, vectors, values, slopes)
    share("gradients", size, job, program, values.batch, len(program.operations))
    if len(program.holes):
        run_on(1, entry("clear", size), job)


def sums_job(program: Any, vectors: Integers, values: Panels, slopes: Panels) -> Integers:
    """The integers of a job that sums up gradients."""
    job = _job(program, values.memory.element_size())
    job[Job.BATCH], job[Job.VECTORS] = values.batch, vectors.ctypes.data
    job[Job.HEIGHT], job[Job.VALUES] = values.height, values.memory.data_ptr()
    job[Job.SLOPES] = slopes.memory.data_ptr()
    return job


def steps_job(size: int, **values: int) -> Integers:
    """The integers of a job that takes training steps."""
    job = np.zeros(len(Steps), np.int64)
    for name, function in {
        "run_panels": "panels",
        "sum_gradients": "gradients",
        "clear": "clear",
        "measure": "measure",
        "update": "update",
    }.items():
        job[_STEPS[name]] = entry(function, size)
    for name, value in values.items():
        job[_STEPS[name]] = value
    return job


def share(name: str, size: int, job: Integers, program: Any, batch: int, most: int) -> None:
    """Has a job done by as many threads as it is worth."""
    team, work = program.team, program.work * batch
    asked = team.size(work, most)
    start = time.perf_counter()
    run_on(asked, entry(name, size), job)
    team.note(asked, work, time.perf_counter() - start)


def _job(program: Any, size: int) -> Integers:
    """The integers of a job, as far as they follow from its program."""
    if size not in program.jobs:
        functions = np.array(
            [entry(one.function, size) if one.function else 0 for one in program.operations],
            np.int64,
        )
        job = np.zeros(len(Job), np.int64)
        for name, table in (*program.tables.items(), ("FUNCTIONS", functions)):
            job[Job[name]] = table.ctypes.data
        job[Job.OPERATIONS], job[Job.HOLE_COUNT] = len(program.operations), len(program.holes)
        job[Job.REAL_COUNT] = len(program.constants)
        for name in ("product", "tall", "oblong", "square"):
            job[Job[name.upper()]] = entry(name, size)
        program.jobs[size] = job, functions
    found: Integers = program.jobs[size][0].copy()
    return found


def _matrix(matrix: Tensor, row: int, where: int) -> tuple[int, ...]:
    return matrix.data_ptr(), matrix.stride(0), row, matrix.shape[1], where


def _dense_rows(matrix: Tensor) -> Tensor:
    """The matrix, or a copy, with neighbouring columns side by side."""
    dense = matrix.stride(1) == 1 or matrix.shape[1] <= 1
    return matrix if dense else matrix.contiguous()


def take_steps(
    table: Integers,
    panels: Integers,
    sums: Integers,
    size: int,
    *,
    team: Team,
    work: Integers,
    most: int,
    add_up: Callable[[], None] | None,
) -> None:
    """Has training steps taken, all by this thread, or each by several.

    They are so many multiplications, of which `most` threads find any. Before the first, zeros are
    written where masks forbid a weight. In each, `add_up` is called between gradient and update.
    """
    run_on(1, entry("clear", size), panels)
    while (first := table[Steps.DONE]) < table[Steps.LAST]:
        asked = team.size(int(work[first]), most)
        start = time.perf_counter()
        if asked == 1 and add_up is None:
            run_on(1, entry("steps", size), table)
        else:
            _share_step(asked, table, panels, sums, size, add_up)
        taken = max(table[Steps.DONE], first + 1)
        team.note(asked, int(work[first:taken].sum()), time.perf_counter() - start)


def _share_step(
    threads: int,
    table: Integers,
    panels: Integers,
    sums: Integers,
    size: int,
    add_up: Callable[[], None] | None,
) -> None:
    """Takes a step with several threads, in the order of :func:`.steps.take_steps`."""
    run_on(1, entry("begin", size), table)
    run_on(threads, entry("panels", size), panels)
    run_on(threads, entry("gradients", size), sums)
    run_on(1, entry("clear", size), sums)
    run_on(1, entry("tally", size), table)
    if add_up is not None:
        add_up()
    run_on(threads, entry("measure", size), table)
    run_on(1, entry("judge", size), table)
    if table[Steps.DONE] < table[Steps.LAST]:
        run_on(threads, entry("update", size), table)
        table[Steps.DONE] += 1
