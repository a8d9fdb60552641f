"""Which cell makes a row odd: the log-density of each column given those before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from maskedflow.columns.column import Column, Part
from maskedflow.columns.reasons import reason, told
from maskedflow.columns.rows import Rows
from maskedflow.columns.schema import Schema

from .density import TableDensity
from .fitted import FittedTable
from .marginal import Marginal, Marginals, units_of
from .proposal import Pieces
from .queries import Numbers, check_draws

REFERENCE = 2**12
"""The draws to which the proposal is fitted: an answer soon counts for more than small errors."""

ADDED = {"log_prob": pa.float64(), "standard_error": pa.float64(), "reason": pa.string()}
"""What an explanation has behind the columns of a table."""


class Explanation(NamedTuple):
    """What the cells of n rows add to their log-densities.

    Args:
        nats: What each column adds, with shape (n, columns).
        standard_error: The standard errors of these, 0 where they are exact.
        log_prob: The log-densities of the rows, (n,).
        reason: Why a row cannot be, empty if it can.
    """

    nats: Numbers
    standard_error: Numbers
    log_prob: Numbers
    reason: list[str]

    def table(self, schema: Schema) -> pa.Table:
        """A column of nats for each column; the log-density; the largest error; the reason."""
        check_names(schema)
        error = self.standard_error.max(axis=1, initial=0.0)
        columns = [*self.nats.T, self.log_prob, error, pa.array(self.reason, pa.string())]
        return pa.table(list(map(pa.array, columns)), schema=explanation_schema(schema))


def check_names(schema: Schema) -> None:
    """Refuses a table that has a column of a name which an explanation adds."""
    for name in ADDED:
        if name in schema.names:
            raise ValueError(f"explain: adds a column {name!r}, which the table has; rename it")


def explanation_schema(schema: Schema) -> pa.Schema:
    """The columns of an explanation."""
    return pa.schema([*((name, pa.float64()) for name in schema.names), *ADDED.items()])


@torch.no_grad()
def explain(
    fitted: FittedTable,
    x: pa.Table,
    context: pa.Table | None,
    n_samples: int,
    seed: int,
    start: int = 0,
) -> Explanation:
    """See :meth:`maskedflow.DensityEstimator.explain`; errors count rows from `start`."""
    check_draws(n_samples, 2)
    schema, n = fitted.schema, x.num_rows
    rows, c = fitted.encode(x, context, start)
    cannot = np.stack([column.encode(x).impossible for column in schema.columns], axis=1)
    log_prob = fitted.density.log_prob(rows, c)
    cells = _Cells(schema, fitted.density, rows, log_prob, torch.from_numpy(cannot))
    contexts = None if c is None else c.unique(dim=0)
    marginals = Marginals(fitted.density, contexts, n_samples, seed, REFERENCE)
    nats, variance = (torch.zeros(n, len(schema.columns), dtype=torch.float64) for _ in range(2))
    for index in cells.alike():
        here = None if c is None else c[index]
        nats[index], variance[index] = cells.decomposed(marginals, index, here)
    reasons = [
        "; ".join(_reasons(schema, x, row, cannot[row], nats[row].numpy())) for row in range(n)
    ]
    return Explanation(nats.numpy(), variance.sqrt().numpy(), log_prob.numpy(), reasons)


class _Cells(NamedTuple):
    """Rows as pieces, and which of their columns they cannot have."""

    schema: Schema
    density: TableDensity
    rows: Rows
    log_prob: Tensor
    cannot: Tensor

    def alike(self) -> Iterator[Tensor]:
        """The rows that have the same pieces."""
        pattern = torch.cat([self.cannot, self.rows.observed, self.rows.angles_observed], dim=1)
        if not pattern.shape[1]:
            yield torch.arange(len(self.rows))
            return
        distinct, which = pattern.unique(dim=0, return_inverse=True)
        for k in range(len(distinct)):
            yield (which == k).nonzero()[:, 0]

    def pieces(self, row: int) -> tuple[list[tuple[int, Part, int]], Pieces]:
        """The pieces of a row that can be, in order, each with its column; those it has not."""
        order: list[tuple[int, Part, int]] = []
        absent: dict[str, tuple[int, ...]] = {}
        there: dict[Part, tuple[tuple[Column, ...], Tensor]] = {
            "codes": (self.schema.coded, torch.ones(len(self.schema.coded))),
            "angles": (self.schema.angular, self.rows.angles_observed[row]),
            "values": (self.schema.valued, self.rows.observed[row]),
        }
        for part, (columns, observed) in there.items():
            for k, column in enumerate(columns):
                place = self.schema.columns.index(column)
                if self.cannot[row, place]:
                    continue
                if observed[k]:
                    order.append((place, part, k))
                else:
                    absent[part] = (*absent.get(part, ()), k)
        return order, Pieces(**absent)

    def decomposed(
        self, marginals: Marginals, index: Tensor, c: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What each column adds, minus infinity where it cannot be, and its variance."""
        rows = self.rows[index]
        order, given = self.pieces(int(index[0]))
        columns = self.schema.columns
        nats, variance = (
            torch.zeros(len(index), len(columns), dtype=torch.float64) for _ in range(2)
        )
        cannot = self.cannot[index[0]]
        possible = [column for column, not_so in zip(columns, cannot, strict=True) if not not_so]
        givens = []
        for _, part, k in order:
            given = replace(given, **{part: (*getattr(given, part), k)})
            givens.append(given)
        whole = self.log_prob[index] - units_of(self.schema, possible, rows)
        known = [] if cannot.any() else [Marginal(whole, torch.zeros_like(whole), whole)]
        found = marginals(rows, givens[: len(givens) - len(known)], c) + known
        last, error = torch.zeros_like(whole), torch.zeros_like(whole)
        for (place, _, _), one in zip(order, found[: len(order)], strict=True):
            # Given what has a density of 0 nothing can be said.
            nats[:, place] += torch.where(last.isneginf(), 0, one.log_prob - last)
            variance[:, place] += one.standard_error.square() + error.square()
            last, error = one.log_prob, one.standard_error
        for place, column in enumerate(columns):
            if column.part is not None and not cannot[place]:
                nats[:, place] += units_of(self.schema, [column], rows)
        nats[:, cannot] = -torch.inf
        return nats, variance


def _reasons(
    schema: Schema, table: pa.Table, row: int, cannot: Numbers, nats: Numbers
) -> Iterator[str]:
    """Why a row cannot be: of each cell that cannot, or has a density that is 0 as a float."""
    for place, column in enumerate(schema.columns):
        if cannot[place]:
            yield reason(column, table, row)
        elif np.isneginf(nats[place]):
            cell = told(table.column(column.name)[row])
            yield f"column {column.name!r}: the density of {cell} is too small for a float"
