"""Describes jobs to the compiled functions, and has them run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskedflow.kernels import Activation, Kernel, Map

from .run import Job, entry
from .threads import Team, run_on
from .tile import PANEL_BYTES

_local = threading.local()
_team = Team()
_PLACES = {one.name.lower(): int(one) for one in Job}


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
        self.batch, self.height, self.kept = batch, height, kept
        width = panel_width(like)
        self.count = -(-batch // width)
        self.places = self.count if kept else min(torch.get_num_threads(), self.count)
        size = self.places * height * width
        self.memory = (
            torch.empty(size, dtype=like.dtype) if memory is None else scratch(memory, size, like)
        )


def run_panels(
    program: Any,
    panels: Panels,
    weights: Sequence[Tensor],
    *,
    loads: Sequence[tuple[Tensor, int]] = (),
    fills: Sequence[tuple[int, int, Tensor | None, Tensor | None]] = (),
    stores: Sequence[tuple[Tensor, int, int]] = (),
    others: Sequence[tuple[Tensor, int, int]] = (),
    other: Panels | None = None,
    activation: tuple[int, float] = (Activation.RELU, 0.0),
    univariate: Kernel = (Map.AFFINE, ()),
    parameters: int = 0,
    ladj: int = 0,
) -> None:
    """Runs a program on all panels of a batch.

    It reads the packed weights of each layer, after zeros are written where masks forbid one.
    `loads` are matrices (samples, numbers) and the first row that takes their columns; `fills` the
    first row and the number of rows that start with a bias, a matrix, both or zeros; `stores`
    matrices, and the first row and the number of rows that become their columns, and `others` the
    same of `other`, the panels that slopes are taken from. A feature has so many `parameters`, and
    the ladj a row.
    """
    like = panels.memory
    size = like.element_size()
    loads = [(_dense_rows(matrix), row) for matrix, row in loads]
    fills = [
        (row, rows, bias, None if added is None else _dense_rows(added))
        for row, rows, bias, added in fills
    ]
    tables = [
        [(m.data_ptr(), m.stride(0), row, m.shape[1], 0) for m, row in loads],
        [(row, rows, *_fill(bias, added)) for row, rows, bias, added in fills],
        [
            (m.data_ptr(), m.stride(0), row, rows, where)
            for where, some in enumerate((stores, others))
            for m, row, rows in some
        ],
        [weight.data_ptr() for weight in weights],
    ]
    loaded, filled, stored, vectors = (np.array(table, np.int64) for table in tables)
    reals = np.array([activation[1], *univariate[1]], np.float64)
    job = _job(
        batch=panels.batch,
        program=program.table.ctypes.data,
        operations=len(program.table),
        vectors=vectors.ctypes.data,
        loads=loaded.ctypes.data,
        load_count=len(loaded),
        fills=filled.ctypes.data,
        fill_count=len(filled),
        stores=stored.ctypes.data,
        store_count=len(stored),
        work=like.data_ptr(),
        height=panels.height,
        keep=panels.kept,
        places=panels.places,
        other=0 if other is None else other.memory.data_ptr(),
        other_height=0 if other is None else other.height,
        activation=activation[0],
        univariate=univariate[0],
        reals=reals.ctypes.data,
        real_count=len(reals),
        parameters=parameters,
        ladj=ladj,
        holes=program.holes.ctypes.data,
        hole_count=len(program.holes),
    )
    if len(program.holes):
        run_on(1, entry("clear", size), job)
    _share("panels", size, job, program.work * panels.batch, panels.places)


def accumulate_gradients(
    program: Any,
    slopes: Panels,
    items: Any,
    sources: Sequence[tuple[Tensor, int]],
    gradients: Sequence[Tensor],
    gaps: Any,
) -> None:
    """Writes the gradients of weights and biases.

    First those of each layer's packed weights, zero in the `gaps` that masks forbid, then those of
    each layer's bias. `slopes` is what a backward program has left, and `items` what there is to
    do, see `kernels.run`. `sources` are what each layer reads, in strips of as many columns as a
    panel has samples, (strips, samples, columns), and the row of its first column.
    """
    table = np.array([(strips.data_ptr(), row) for strips, row in sources], np.int64)
    places = np.array([gradient.data_ptr() for gradient in gradients], np.int64)
    job = _job(
        batch=slopes.batch,
        program=program.table.ctypes.data,
        operations=len(program.table),
        work=slopes.memory.data_ptr(),
        height=slopes.height,
        vectors=places.ctypes.data,
        items=items.ctypes.data,
        item_count=len(items),
        sources=table.ctypes.data,
        holes=gaps.ctypes.data,
        hole_count=len(gaps),
    )
    size = slopes.memory.element_size()
    _share("gradients", size, job, program.work * slopes.batch, len(items))
    if len(gaps):
        run_on(1, entry("clear", size), job)


def _share(name: str, size: int, job: Any, work: int, most: int) -> None:
    """Has a job done by as many threads as it is worth."""
    asked = _team.size(work, most)
    run_on(asked, entry(name, size), job)
    if asked > 1:
        _team.note(asked, int(job[Job.BUSY]))


def _job(**values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    job = np.zeros(len(Job), np.int64)
    for name, value in values.items():
        job[_PLACES[name]] = value
    return job


def _dense_rows(matrix: Tensor) -> Tensor:
    """The matrix, or a copy, with neighbouring columns side by side."""
    dense = matrix.stride(1) == 1 or matrix.shape[1] <= 1
    return matrix if dense else matrix.contiguous()


def _fill(bias: Tensor | None, added: Tensor | None) -> tuple[int, int, int]:
    matrix = (0, 0) if added is None else (added.data_ptr(), added.stride(0))
    return (0 if bias is None else bias.data_ptr(), *matrix)
