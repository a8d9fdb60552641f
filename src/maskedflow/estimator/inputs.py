"""What an estimator is given: tables, contexts and schemas, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import torch
from sklearn.utils.validation import validate_data
from torch import Tensor

from maskedflow.files import read_text
from maskedflow.tables import (
    Rows,
    Schema,
    context_matrix,
    kind_of,
    read_document,
    to_arrow,
    to_rows,
)
from maskedflow.tables.schema import Missing
from maskedflow.transforms import Standardize

if TYPE_CHECKING:
    from .estimator import DensityEstimator

__all__ = ["context_of", "fit_context", "known_of", "rows_of", "table_of"]


def table_of(estimator: DensityEstimator, X: Any, missing: Missing, *, reset: bool) -> pa.Table:
    """X as an Arrow table, checked as scikit-learn does."""
    if kind_of(X) == "numpy":
        mixed = getattr(X, "dtype", None) == np.dtype(object)
        X = validate_data(
            estimator,
            X,
            reset=reset,
            dtype=None if mixed else "numeric",
            ensure_all_finite=True if missing == "error" else "allow-nan",
        )
        for cell in X.flat if mixed else ():
            if isinstance(cell, Mapping | list | tuple | set):
                kind = type(cell).__name__
                raise TypeError(f"X: each argument must be a string or a number, got a {kind}")
        table = to_arrow(X)
        # Of an array after a frame, scikit-learn warns; its columns go by their places.
        return table if reset else table.rename_columns(estimator.schema_.names)
    table = to_arrow(X)
    names = np.asarray(table.column_names, dtype=object)
    if reset:
        estimator.n_features_in_, estimator.feature_names_in_ = len(names), names
    elif list(names) != list(getattr(estimator, "feature_names_in_", names)):
        absent = [name for name in estimator.feature_names_in_ if name not in names]
        if absent:
            raise ValueError(f"X: has no column {absent[0]!r}, which was there in fit")
        table = table.select(list(estimator.feature_names_in_))
    if not table.num_rows:
        raise ValueError("X: expected at least one row, got 0 sample(s)")
    return table


def rows_of(estimator: DensityEstimator, X: Any, context: Any) -> tuple[Rows, Tensor | None]:
    """The rows of X, and their contexts, for a fitted estimator."""
    table = table_of(estimator, X, estimator.schema_.missing, reset=False)
    rows = to_rows(estimator.schema_, table)
    given = None if context is None else to_arrow(context, "context")
    return rows, context_of(estimator, given, len(rows))


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


def fit_context(estimator: DensityEstimator, table: pa.Table, missing: Missing) -> Rows:
    """Tells what the columns of a context are, and what standardises their numbers; its rows."""
    with in_context():
        schema = Schema.infer(table, missing)
        rows = to_rows(schema, table)
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


@contextmanager
def in_context() -> Iterator[None]:
    """Says in an error that it is about the context."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"context: {str(error).removeprefix('context: ')}") from None
