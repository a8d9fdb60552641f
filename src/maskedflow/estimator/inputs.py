"""What an estimator is given: tables, contexts and schemas, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import _check_sample_weight, validate_data
from torch import Tensor

from maskedflow.columns.schema import Missing
from maskedflow.files import read_text
from maskedflow.tables import (
    Form,
    Rows,
    Schema,
    as_array,
    context_matrix,
    kind_of,
    read_document,
    read_frame,
    to_arrow,
    to_rows,
    weights_of,
)
from maskedflow.transforms import Standardize

Numbers = NDArray[np.float64]

if TYPE_CHECKING:
    from .estimator import DensityEstimator

__all__ = [
    "check_draws",
    "check_spread",
    "context_of",
    "context_table",
    "fit_context",
    "fitted_table",
    "known_of",
    "rows_of",
    "table_of",
    "weight_of",
]

_SPREAD = 1e150
"""The widest range of numbers, and one over the narrowest, whose squares are floats."""


def table_of(estimator: DensityEstimator, X: Any) -> pa.Table:
    """X as an Arrow table, for a fitted estimator."""
    if kind_of(X) == "numpy":
        table, _ = _array_table(estimator, X, reset=False)
        # Of an array after a frame, scikit-learn warns; its columns go by their places.
        return table.rename_columns(estimator.schema_.names)
    wanted = list(getattr(estimator, "feature_names_in_", estimator.schema_.names))
    table = to_arrow(X, wanted=wanted)
    for name in wanted:
        if name not in table.column_names:
            raise ValueError(f"X: has no column {name!r}, which was there in fit")
    return _with_rows(table.select(wanted))


def fitted_table(estimator: DensityEstimator, X: Any) -> tuple[pa.Table, Form]:
    """X as an Arrow table, and its form; an estimator that is to be fitted is told the columns."""
    if kind_of(X) == "numpy":
        return _array_table(estimator, X, reset=True)
    table, form = read_frame(X)
    estimator.n_features_in_ = table.num_columns
    estimator.feature_names_in_ = np.asarray(table.column_names, dtype=object)
    return _with_rows(table), form


def _array_table(estimator: DensityEstimator, X: Any, *, reset: bool) -> tuple[pa.Table, Form]:
    """An array, checked as scikit-learn does; which numbers are there is told by the schema."""
    X = as_array(X)
    validate_data(estimator, X, reset=reset, dtype=None, ensure_all_finite=False)
    for cell in X.flat if X.dtype == object else ():
        if isinstance(cell, Mapping | list | tuple | set):
            kind = type(cell).__name__
            raise TypeError(f"X: each argument must be a string or a number, got a {kind}")
    return read_frame(X)


def _with_rows(table: pa.Table) -> pa.Table:
    if not table.num_rows:
        raise ValueError("X: expected at least one row, got 0 sample(s)")
    return table


def context_table(estimator: DensityEstimator, context: Any) -> pa.Table | None:
    """A context as an Arrow table, for a fitted estimator."""
    schema = estimator.context_schema_
    return None if context is None else to_arrow(context, "context", schema.names if schema else ())


def weight_of(X: Any, sample_weight: Any, rows: int) -> Numbers:
    """How much each row counts, as is told or as the index of X says; 1 if neither does."""
    kept = weights_of(X)
    if kept is not None and sample_weight is not None:
        raise ValueError(
            "sample_weight: expected none, for the index of X has a level of weights; "
            "X.reset_index(drop=True) leaves it out"
        )
    told = kept if sample_weight is None else sample_weight
    if told is None:
        return np.ones(rows)
    if isinstance(told, Tensor):
        told = told.double().numpy(force=True)
    if np.ma.is_masked(told):
        hidden = int(np.ma.getmaskarray(told).sum())
        raise ValueError(f"sample_weight: expected a weight for each row, found {hidden:,} masked")
    weight: Numbers = _check_sample_weight(told, np.zeros((rows, 1)), ensure_non_negative=True)
    return weight


def rows_of(estimator: DensityEstimator, X: Any, context: Any) -> tuple[Rows, Tensor | None]:
    """The rows of X, and their contexts, for a fitted estimator."""
    rows = to_rows(estimator.schema_, table_of(estimator, X))
    return rows, context_of(estimator, context_table(estimator, context), len(rows))


def known_of(
    estimator: DensityEstimator,
) -> tuple[Schema | Mapping[str, Mapping[str, Any]] | None, Missing]:
    """What is given of the schema, and what becomes of missing values."""
    if estimator.missing not in get_args(Missing):
        choices = "expected 'error', 'drop' or 'model'"
        raise ValueError(f"missing: {choices}, got {estimator.missing!r}")
    missing: Any = estimator.missing
    if isinstance(estimator.schema, Schema):
        return estimator.schema, estimator.schema.missing
    if isinstance(estimator.schema, str | Path):
        path = Path(estimator.schema)
        told, known = read_document(read_text(path))
        return known, told or missing
    if isinstance(estimator.schema, Mapping):  # labels that are no text are told as text
        return {str(name): known for name, known in estimator.schema.items()}, missing
    return estimator.schema, missing


def context_of(estimator: DensityEstimator, table: pa.Table | None, rows: int) -> Tensor | None:
    """A context as a matrix: one-hot vectors, sines and cosines, standardised numbers."""
    if (table is None) != (estimator.context_schema_ is None):
        got = "none" if table is None else "one"
        raise ValueError(f"context: got {got}, unlike in fit")
    if table is None or estimator.context_schema_ is None or estimator.context_scale_ is None:
        return None
    if table.num_rows != rows:
        raise ValueError(f"context: {table.num_rows} rows, expected {rows}")
    with in_context():
        c = context_matrix(estimator.context_schema_, table, estimator.context_scale_())
    return c if c.shape[1] else None  # constants say nothing


def fit_context(
    estimator: DensityEstimator, table: pa.Table, missing: Missing, index: NDArray[np.int64]
) -> Rows:
    """Tells what the columns of a context are, and what standardises their numbers; its rows.

    Args:
        estimator: The estimator.
        table: The context.
        missing: What becomes of missing values.
        index: Where its rows were in the table, for errors.
    """
    with in_context():
        schema = Schema.infer(table, missing)
        rows = to_rows(schema, table)
        check_spread(schema, rows, index)
    estimator.context_schema_, estimator.context_scale_ = schema, scale_of(rows)
    return rows


def scale_of(rows: Rows) -> Standardize:
    """What standardises the numbers of a context that are there, constants to 0."""
    loc, scale = [], []
    for values, there in zip(rows.values.T, rows.observed.T, strict=True):
        known = values[there]
        loc.append(float(known.mean()) if len(known) else 0.0)
        spread = float(known.std(correction=0)) if len(known) else 0.0
        scale.append(spread if spread > 0 else 1.0)
    return Standardize(*(torch.tensor(each, dtype=torch.float64) for each in (loc, scale)))


def check_spread(schema: Schema, rows: Rows, index: NDArray[np.int64]) -> None:
    """Refuses numbers whose squares are none that float64 can hold.

    Args:
        schema: The columns.
        rows: Their rows.
        index: Where these were in the table, for errors.
    """
    for column, x, there in zip(
        schema.valued, rows.values.unbind(1), rows.observed.unbind(1), strict=True
    ):
        # Those with bounds are computed with on the real line, where they are near.
        if column.low is not None or column.high is not None or not there.any():
            continue
        low, high = float(x[there].min()), float(x[there].max())
        if high - low > _SPREAD:
            row = int(x.abs().argmax())
            raise ValueError(
                f"column {column.name!r}, row {index[row] + 1}: expected numbers less than "
                f"{_SPREAD:g} apart, found {x[row]:g}; use another unit"
            )
        if 0 < high - low < 1 / _SPREAD:
            raise column.error(
                f"expected numbers more than {1 / _SPREAD:g} apart, found {low:g} to {high:g}; use "
                "another unit"
            )


def check_draws(n_samples: Any, least: int = 1) -> None:
    """Refuses what is no number of draws."""
    if not isinstance(n_samples, Integral):
        raise ValueError(f"n_samples: expected a whole number, got {n_samples!r}")
    if n_samples < least:
        raise ValueError(f"n_samples: expected at least {least}, got {n_samples}")


@contextmanager
def in_context() -> Iterator[None]:
    """Says in an error that it is about the context."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"context: {str(error).removeprefix('context: ')}") from None
