"""Questions to a fitted density: conditionals, residuals, tails, draws given some columns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.columns import Column, Rows, Schema, to_rows, to_table
from maskedflow.columns.cells import is_missing
from maskedflow.columns.reasons import reason
from maskedflow.training.randomness import row_seed

from .completion import Known, sample_unknown
from .fitted import FittedTable
from .marginal import given_columns, log_marginal, pieces_of, units_of
from .pit import pit

Numbers = NDArray[np.float64]

TRUSTED = 50
"""Effective draws below which a standard error is not to be trusted."""
DRAWN, DRAWN_GIVEN = 10_000, 500
"""The rows that are drawn, and of a conditional density those for each context."""


class ConditionalScore(NamedTuple):
    """Log-densities of rows given some columns, in nats, and their standard errors, 0 if exact."""

    log_density: Numbers
    standard_error: Numbers


def score_given(
    fitted: FittedTable,
    x: pa.Table,
    given: Sequence[str | int],
    context: pa.Table | None,
    n_samples: int,
    seed: int,
    start: int = 0,
) -> ConditionalScore:
    """See :meth:`maskedflow.DensityEstimator.score_samples_given`; errors count from `start`."""
    check_draws(n_samples, 2)
    schema = fitted.schema
    names = _names(schema, given)
    columns = given_columns(schema, names)
    rows, c = fitted.encode(x, context, start)
    with torch.no_grad():
        log_density = fitted.density.log_prob(rows, c)
    error, unsure, index = torch.zeros_like(log_density), 0, ~rows.impossible
    if len(columns) == len(schema.free):
        log_density[index] = 0.0
    elif columns and index.any():
        possible, c = rows[index], None if c is None else c[index]
        pieces = pieces_of(schema, columns)
        found = log_marginal(fitted.density, possible, pieces, c, n_samples, seed)
        log_density[index] -= found.log_prob + units_of(schema, columns, possible)
        error[index] = found.standard_error
        unsure = int((found.effective < TRUSTED).sum())
    known = {*names, *(column.name for column in columns)}
    for column in schema.columns:
        if column.name in known:
            # Given what cannot be, nothing can be said.
            cannot = torch.from_numpy(column.encode(x, start).impossible)
            log_density[cannot] = error[cannot] = np.nan
    if unsure:
        warnings.warn(
            f"{unsure:,} of {len(rows):,} rows: the {n_samples:,} draws of the unknown columns "
            f"are worth fewer than {TRUSTED}; neither estimates nor errors of these can be "
            "trusted, raise n_samples",
            stacklevel=3,
        )
    return ConditionalScore(log_density.numpy(), error.numpy())


def residuals(fitted: FittedTable, x: pa.Table, context: pa.Table | None, seed: int) -> Numbers:
    """See :meth:`maskedflow.DensityEstimator.pit`."""
    rows, c = fitted.encode(x, context)
    generator = torch.Generator().manual_seed(seed)
    found: Numbers = pit(fitted.schema, fitted.density, rows, c, generator).numpy()
    return found


def tail_shares(
    fitted: FittedTable, x: pa.Table, context: pa.Table | None, n_samples: int | None, seed: int
) -> Numbers:
    """See :meth:`maskedflow.DensityEstimator.tail_probability`."""
    rows, c = fitted.encode(x, context)
    with torch.no_grad():
        log_density = fitted.density.log_prob(rows, c)
    found: Numbers = tail_of(fitted, n_samples, seed)(log_density, c).numpy()
    return found


def tail_of(fitted: FittedTable, n_samples: int | None = None, seed: int = 0) -> Tail:
    """Tells how much of a density is no likelier than some rows of it."""

    @torch.no_grad()
    def draw(n: int, c: Tensor | None, seed: int) -> Tensor:
        drawn = fitted.density.sample(n, c, torch.Generator().manual_seed(seed))
        return fitted.density.log_prob(drawn, None if c is None else c.expand(n, -1))

    return Tail(draw, n_samples, seed)


class Tail:
    """Tells how much of a density is no likelier than some rows of it.

    Args:
        draw: Draws so many rows given one context, shape (context,), or none, by a seed: their
            log-densities.
        n_samples: The draws, for each distinct context if there are any; some thousands, or
            hundreds given a context, if None.
        seed: Seed of the draws.

    Example:
        >>> tail = Tail(lambda n, c, seed: torch.arange(n) / n, 100)
        >>> tail(torch.tensor([0.245, 7.0]))
        tensor([0.2500, 1.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        draw: Callable[[int, Tensor | None, int], Tensor],
        n_samples: int | None = None,
        seed: int = 0,
    ) -> None:
        if n_samples is not None:
            check_draws(n_samples)
        self.draw, self.n_samples, self.seed = draw, n_samples, seed

    @cached_property
    def _ranked(self) -> Tensor:
        """The log-densities of rows given no context, in order."""
        return self.draw(self.n_samples or DRAWN, None, self.seed).sort().values

    def __call__(self, log_density: Tensor, c: Tensor | None = None) -> Tensor:
        """The shares of draws that are no likelier than rows of these log-densities."""
        if c is None:
            return _share(self._ranked, log_density)
        shares = torch.empty(len(log_density), dtype=torch.float64)
        distinct, which = c.unique(dim=0, return_inverse=True)
        for k, one in enumerate(distinct):
            here = which == k
            # Draws depend on the context alone: neither on other rows nor on their order.
            drawn = self.draw(self.n_samples or DRAWN_GIVEN, one, row_seed(one, self.seed))
            shares[here] = _share(drawn.sort().values, log_density[here])
        return shares


def _share(ranked: Tensor, log_density: Tensor) -> Tensor:
    return torch.searchsorted(ranked, log_density, right=True).double() / len(ranked)


def sample_given(
    fitted: FittedTable,
    x: pa.Table,
    context: pa.Table | None,
    n: int,
    n_candidates: int,
    seed: int,
    start: int = 0,
) -> pa.Table:
    """See :meth:`maskedflow.DensityEstimator.sample_given`; errors count rows from `start`."""
    check_draws(n)
    check_draws(n_candidates, 2, "n_candidates")
    schema = fitted.schema
    rows, known = _partly_known(fitted, x, start)
    c = fitted.condition(context, x.num_rows, start)
    made, effective = sample_unknown(fitted.density, rows, known, c, n, n_candidates, seed)
    least = max(TRUSTED, n)
    if unsure := int((effective < least).sum()):
        warnings.warn(
            f"{unsure:,} of {x.num_rows:,} rows: the candidates for their unknown columns are "
            f"worth fewer than {least:,} draws, of which some are rows more than once; raise "
            "n_candidates",
            stacklevel=3,
        )
    drawn = to_table(schema, made)
    again = np.repeat(np.arange(x.num_rows), n)
    for place, column in enumerate(schema.columns):
        # As an angle it is rounded: what was given stays as it is.
        if column.part == "angles" and column.name in x.column_names:
            given = x.column(column.name).cast(column.type).take(again)
            cells = pc.coalesce(given, drawn.column(column.name))
            drawn = drawn.set_column(place, column.name, cells)
    return drawn


def _partly_known(fitted: FittedTable, x: pa.Table, start: int) -> tuple[Rows, Known]:
    """Rows some of whose columns are not there, or have cells that are missing."""
    schema = fitted.schema
    cells = {
        column.name: x.column(column.name)
        if column.name in x.column_names
        else pa.chunked_array([pa.nulls(x.num_rows, column.type)])
        for column in schema.columns
    }
    for column in schema.columns:  # what a duplicate knows its column knows, too
        if column.of is not None and column.name in x.column_names:
            cells[column.of] = _filled(cells[column.of], cells[column.name])
    table = pa.table(cells)
    there = {name: ~is_missing(column) for name, column in cells.items()}
    for column in schema.columns:
        wrong = column.encode(table, start).impossible & there[column.name]
        if wrong.any():
            row = int(wrong.argmax())
            told = reason(column, table, row).removeprefix(f"column {column.name!r}")
            raise ValueError(f"column {column.name!r}, row {start + row + 1}{told}")

    def known(columns: Sequence[Column]) -> Tensor:
        masks = [torch.from_numpy(there[column.name]) for column in columns]
        return torch.stack(masks, 1) if masks else torch.zeros(x.num_rows, 0, dtype=torch.bool)

    rows = to_rows(replace(schema, missing="model"), table)
    codes = known(schema.coded)
    excluded = torch.full(codes.shape, -1)
    for k, column in enumerate(schema.coded):
        # A cell that is missing from a column stands for one that is there.
        if column.missing and column.name in x.column_names:
            if column.part == "codes":
                excluded[~codes[:, k], k] = column.code_levels - 1
            elif column.code_levels == 2:
                rows.codes[~codes[:, k], k] = 0
                codes[:, k] = True
            else:
                excluded[~codes[:, k], k] = 1
    made = fitted.density.build_rows(len(rows), torch.where(codes, rows.codes, 0))
    made = replace(
        made,
        values=torch.where(made.observed & rows.observed, rows.values, 0),
        angles=torch.where(made.angles_observed & rows.angles_observed, rows.angles, 0),
    )
    return made, Known(codes, known(schema.valued), known(schema.angular), excluded)


def _filled(cells: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cells, and in the place of missing ones those of another column."""
    missing = is_missing(cells)
    if missing.all():
        return others
    cells, others = (
        part.cast(part.type.value_type) if pa.types.is_dictionary(part.type) else part
        for part in (cells, others)
    )
    return pc.if_else(pa.array(missing), others.cast(cells.type), cells)


def _names(schema: Schema, given: Sequence[str | int]) -> list[str]:
    """Names of columns, some of which are told by their places."""
    if isinstance(given, str):
        raise ValueError(f"given: expected a list of columns, got the string {given!r}")
    names = []
    for one in given:
        if isinstance(one, bool | np.bool_):
            raise ValueError(f"given: expected names or places of columns, got {one}")
        if not isinstance(one, int | np.integer):
            names.append(str(one))
        elif 0 <= one < len(schema.names):
            names.append(schema.names[one])
        else:
            raise ValueError(f"given: expected places in 0..{len(schema.names) - 1}, got {one}")
    return names


def check_draws(n: Any, least: int = 1, name: str = "n_samples") -> None:
    """Refuses what is no number of draws."""
    if not isinstance(n, Integral):
        raise ValueError(f"{name}: expected a whole number, got {n!r}")
    if n < least:
        raise ValueError(f"{name}: expected at least {least}, got {n}")
