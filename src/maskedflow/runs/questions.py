"""What is asked of each row of a file: its score, how rare it is, which cell makes it odd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from maskedflow.tables import FittedTable
from maskedflow.tables.explanation import check_names, explain, explanation_schema
from maskedflow.tables.queries import Tail, score_given, tail_of

from .density import Density, Part
from .run import Run

SCORE, ERROR, TAIL = "log_prob", "standard_error", "tail_probability"
"""The names of columns of answers."""

DRAWS, DRAWS_EXPLAINED = 1000, 200
"""The draws that an estimate is made of."""
SEED = 209652396
"""The seed of these draws: what an estimator of `random_state=0` draws."""

ROWS = 1000
"""Rows asked about at once where each of them takes many densities."""


@dataclass(frozen=True)
class Question:
    """What is asked of rows.

    Args:
        schema: The columns of the answers.
        answer: Takes rows, the number of the first one in the file, and a seed of noise; gives
            the columns.
        rows: The rows of a block; None if that does not matter.
    """

    schema: pa.Schema
    answer: Callable[[Part, int, int], Sequence[pa.Array]]
    rows: int | None = None


def ask(
    run: Run, *, explain: bool = False, tail: bool = False, given: Sequence[str] | None = None
) -> Question:
    """Makes the question that some options ask: the score of each row, if there are none.

    Raises:
        ValueError: If they do not go together, or the run has no answer.
    """
    density = run.density
    if given is not None and (explain or tail):
        raise ValueError("given: scores some columns; ask for explain and tail without it")
    asked = [name for name, said in (("explain", explain), ("given", given is not None)) if said]
    if not asked:
        question = _score(density)
    elif not isinstance(density, FittedTable):
        raise ValueError(
            f"{asked[0]}: {run.directory} is a single flow, which has no densities of some columns "
            "alone; a run of train --flow auto has"
        )
    elif given is not None:
        question = _score_given(density, run, given)
    else:
        question = _explain(density)
    return _with_tail(density, question) if tail else question


def _score(density: Density) -> Question:
    def answer(part: Part, start: int, seed: int) -> list[pa.Array]:
        return [pa.array(density.log_prob(part.x, part.context, start=start, seed=seed).numpy())]

    return Question(pa.schema([(SCORE, pa.float64())]), answer)


def _score_given(fitted: FittedTable, run: Run, given: Sequence[str]) -> Question:
    for i, name in enumerate(given):
        if name not in fitted.columns:
            raise ValueError(
                f"given: {run.directory} has no column {name!r}; its columns are "
                f"{', '.join(fitted.columns)}"
            )
        if name in given[:i]:
            raise ValueError(f"given: column {name!r} is given twice")

    def answer(part: Part, start: int, seed: int) -> list[pa.Array]:
        x, context, dropped = fitted.without_gaps(part.x, part.context)
        if dropped.all():
            return [pa.array(np.full(len(dropped), np.nan))] * 2
        found = score_given(fitted, x, given, context, DRAWS, SEED, start)
        return [pa.array(np.where(dropped, np.nan, column)) for column in found]

    return Question(pa.schema([(SCORE, pa.float64()), (ERROR, pa.float64())]), answer, ROWS)


def _explain(fitted: FittedTable) -> Question:
    check_names(fitted.schema)
    schema = explanation_schema(fitted.schema)

    def answer(part: Part, start: int, seed: int) -> list[pa.Array]:
        x, context, dropped = fitted.without_gaps(part.x, part.context)
        if dropped.all():
            found = pa.table({field.name: pa.nulls(len(dropped), field.type) for field in schema})
        else:
            made = explain(fitted, x, context, DRAWS_EXPLAINED, SEED, start)
            found = made.table(fitted.schema)
        *numbers, reasons = (column.combine_chunks() for column in found.columns)
        told = np.where(dropped, "a cell is missing: such rows were dropped", reasons)
        return [*(pa.array(np.where(dropped, np.nan, one)) for one in numbers), pa.array(told)]

    return Question(schema, answer, ROWS)


def _with_tail(density: Density, question: Question) -> Question:
    """The same, and how much of the density is no likelier than each row."""
    shares = _tail_of_table(density) if isinstance(density, FittedTable) else _tail_of_flow(density)

    def answer(part: Part, start: int, seed: int) -> list[pa.Array]:
        found = question.answer(part, start, seed)
        log_prob = torch.from_numpy(np.array(found[question.schema.get_field_index(SCORE)]))
        share = torch.where(log_prob.isnan(), torch.nan, shares(part, log_prob, start))
        return [*found, pa.array(share.numpy())]

    schema = question.schema.append(pa.field(TAIL, pa.float64()))
    return Question(schema, answer, question.rows)


Shares = Callable[[Part, Tensor, int], Tensor]


def _tail_of_table(fitted: FittedTable) -> Shares:
    tail = tail_of(fitted, seed=SEED)

    def shares(part: Part, log_prob: Tensor, start: int) -> Tensor:
        _, context, dropped = fitted.without_gaps(part.x, part.context)
        if dropped.all():
            return log_prob
        return tail(log_prob, fitted.condition(context, len(log_prob), start))

    return shares


def _tail_of_flow(density: Density) -> Shares:
    def draw(n: int, c: Tensor | None, seed: int) -> Tensor:
        given: Any = None if c is None else c.expand(n, -1)
        drawn = density.sample(n, given, seed=seed)
        return density.log_prob(drawn, given, seed=seed)

    tail = Tail(draw, seed=SEED)

    def shares(part: Part, log_prob: Tensor, start: int) -> Tensor:
        return tail(log_prob, cast(Tensor | None, part.context))

    return shares
