"""Questions to a fitted estimator: conditionals, residuals, tails."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from maskedflow.tables import (
    Schema,
    TableDensity,
    given_columns,
    log_marginal,
    pieces_of,
    pit,
    to_rows,
    units_of,
)
from maskedflow.training.randomness import row_seed

from .inputs import check_draws, rows_of, table_of

if TYPE_CHECKING:
    from .estimator import DensityEstimator

__all__ = ["ConditionalScore", "residuals", "score_given", "tail_shares"]

Numbers = NDArray[np.float64]

TRUSTED = 50
"""Effective draws below which a standard error is not to be trusted."""
DRAWN, DRAWN_GIVEN = 10_000, 500
"""The rows that are drawn, and of a conditional density those for each context."""


class ConditionalScore(NamedTuple):
    """Log-densities of rows given some columns, and how sure they are.

    Args:
        log_density: The log-densities, in nats, one a row.
        standard_error: Their standard errors, 0 where they are exact.
    """

    log_density: Numbers
    standard_error: Numbers


def score_given(
    estimator: DensityEstimator,
    X: Any,
    given: Sequence[str | int],
    context: Any = None,
    n_samples: int = 1000,
    random_state: Any = 0,
) -> ConditionalScore:
    """See :meth:`DensityEstimator.score_samples_given`."""
    check_is_fitted(estimator)
    check_draws(n_samples, 2)
    seed, schema = _seed(random_state), estimator.schema_
    columns = given_columns(schema, _names(schema, given))
    rows, c = rows_of(estimator, X, context)
    with torch.no_grad():
        log_density: Numbers = estimator.density_.log_prob(rows, c).numpy()
    error = np.zeros(len(rows))
    unsure = 0
    index = (~rows.impossible).numpy()
    free = sum(column.kind not in ("constant", "duplicate") for column in schema.columns)
    if len(columns) == free:
        log_density[index] = 0.0
    elif columns and index.any():
        possible = rows[~rows.impossible]
        found = log_marginal(
            estimator.density_,
            possible,
            pieces_of(schema, columns),
            None if c is None else c[~rows.impossible],
            n_samples,
            seed,
        )
        log_given = found.log_prob + units_of(schema, columns, possible)
        log_density[index] -= log_given.numpy()
        error[index] = found.standard_error.numpy()
        unsure = int((found.effective < TRUSTED).sum())
    if columns:
        # Given what cannot be, nothing can be said.
        table = table_of(estimator, X)
        cannot = to_rows(Schema(columns, schema.missing), table).impossible.numpy()
        log_density[cannot] = error[cannot] = np.nan
    if unsure:
        warnings.warn(
            f"{unsure:,} of {len(rows):,} rows: the {n_samples:,} draws of the unknown columns "
            f"are worth fewer than {TRUSTED}; neither estimates nor errors of these can be "
            "trusted, raise n_samples",
            stacklevel=3,
        )
    return ConditionalScore(log_density, error)


def residuals(estimator: DensityEstimator, X: Any, context: Any, random_state: Any) -> Numbers:
    """See :meth:`DensityEstimator.pit`."""
    check_is_fitted(estimator)
    rows, c = rows_of(estimator, X, context)
    generator = torch.Generator().manual_seed(_seed(random_state))
    found: Numbers = pit(estimator.schema_, estimator.density_, rows, c, generator).numpy()
    return found


def tail_shares(
    estimator: DensityEstimator, X: Any, context: Any, n_samples: int | None, random_state: Any
) -> Numbers:
    """See :meth:`DensityEstimator.tail_probability`."""
    check_is_fitted(estimator)
    if n_samples is not None:
        check_draws(n_samples)
    rows, c = rows_of(estimator, X, context)
    with torch.no_grad():
        log_density = estimator.density_.log_prob(rows, c)
    seed = _seed(random_state)
    if c is None:
        return _share(estimator.density_, log_density, None, n_samples or DRAWN, seed)
    shares = np.empty(len(rows))
    distinct, which = c.unique(dim=0, return_inverse=True)
    for k, one in enumerate(distinct):
        here = which == k
        # Draws depend on the context alone: neither on other rows nor on their order.
        shares[here.numpy()] = _share(
            estimator.density_,
            log_density[here],
            one,
            n_samples or DRAWN_GIVEN,
            row_seed(one, seed),
        )
    return shares


@torch.no_grad()
def _share(
    density: TableDensity, log_density: Tensor, c: Tensor | None, n: int, seed: int
) -> Numbers:
    """The share of draws that are not likelier."""
    drawn = density.sample(n, c, torch.Generator().manual_seed(seed))
    given = None if c is None else c.expand(n, -1)
    ranked = density.log_prob(drawn, given).sort().values
    share: Numbers = (torch.searchsorted(ranked, log_density, right=True) / n).double().numpy()
    return share


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


def _seed(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(2**31))
