"""Questions to a fitted density: conditionals, residuals, tails."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.columns import Schema, to_rows
from maskedflow.training.randomness import row_seed

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
) -> ConditionalScore:
    """See :meth:`maskedflow.DensityEstimator.score_samples_given`."""
    check_draws(n_samples, 2)
    schema = fitted.schema
    columns = given_columns(schema, _names(schema, given))
    rows, c = fitted.encode(x, context)
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
    if columns:
        # Given what cannot be, nothing can be said.
        cannot = to_rows(Schema(columns, schema.missing), x).impossible
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


@torch.no_grad()
def tail_shares(
    fitted: FittedTable, x: pa.Table, context: pa.Table | None, n_samples: int | None, seed: int
) -> Numbers:
    """See :meth:`maskedflow.DensityEstimator.tail_probability`."""
    if n_samples is not None:
        check_draws(n_samples)
    rows, c = fitted.encode(x, context)
    log_density = fitted.density.log_prob(rows, c)

    def share(log_density: Tensor, c: Tensor | None, n: int, seed: int) -> Tensor:
        drawn = fitted.density.sample(n, c, torch.Generator().manual_seed(seed))
        given = None if c is None else c.expand(n, -1)
        ranked = fitted.density.log_prob(drawn, given).sort().values
        return (torch.searchsorted(ranked, log_density, right=True) / n).double()

    if c is None:
        shares = share(log_density, None, n_samples or DRAWN, seed)
    else:
        shares = torch.empty_like(log_density)
        distinct, which = c.unique(dim=0, return_inverse=True)
        for k, one in enumerate(distinct):
            here = which == k
            # Draws depend on the context alone: neither on other rows nor on their order.
            n = n_samples or DRAWN_GIVEN
            shares[here] = share(log_density[here], one, n, row_seed(one, seed))
    found: Numbers = shares.numpy()
    return found


def _names(schema: Schema, given: Sequence[str | int]) -> list[str]:
    """Names of columns, some of which are told by their places."""
    if isinstance(given, str):
        raise ValueError(f"given: expected a list of columns, got the string {given!r}")
    names = []
    for one in given:
        if not isinstance(one, int | np.integer):
            names.append(str(one))
        elif 0 <= one < len(schema.names):
            names.append(schema.names[one])
        else:
            raise ValueError(f"given: expected places in 0..{len(schema.names) - 1}, got {one}")
    return names


def check_draws(n_samples: Any, least: int = 1) -> None:
    """Refuses what is no number of draws."""
    if not isinstance(n_samples, Integral):
        raise ValueError(f"n_samples: expected a whole number, got {n_samples!r}")
    if n_samples < least:
        raise ValueError(f"n_samples: expected at least {least}, got {n_samples}")
