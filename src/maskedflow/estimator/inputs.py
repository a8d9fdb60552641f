"""What an estimator is given: tables, contexts and schemas, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data
from torch import Tensor

from maskedflow.tables import (
    Rows,
    Schema,
    kind_of,
    number_context,
    read_document,
    to_arrow,
    to_rows,
)
from maskedflow.tables.schema import Missing
from maskedflow.transforms import Standardize

if TYPE_CHECKING:
    from .estimator import DensityEstimator

__all__ = ["context_of", "known_of", "refuse_huge", "rows_of", "scale_of", "table_of"]

_LARGEST = 1e150
"""The size of numbers whose squares are finite."""


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


def refuse_huge(schema: Schema, rows: Rows, number: NDArray[np.int64]) -> None:
    """Says which number is too large for a variance.

    Args:
        schema: What is known of the columns.
        rows: The rows.
        number: The number of each in X, from 0.

    Raises:
        ValueError: If there is one.
    """
    huge = rows.values.abs() > _LARGEST
    if huge.any():
        row, column = huge.nonzero()[0].tolist()
        raise ValueError(
            f"column {schema.valued[column].name!r}, row {number[row] + 1}: expected numbers up to "
            f"{_LARGEST:g} in size, found {rows.values[row, column]:g}"
        )


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
        if not path.is_file():
            raise FileNotFoundError(f"schema: {path}: no such file")
        told, known = read_document(path.read_text("utf-8"))
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
    found = to_rows(estimator.context_schema_, table)
    if found.impossible.any():
        row = int(found.impossible.nonzero()[0]) + 1
        raise ValueError(f"context: row {row} has a value that was not there in fit")
    c = number_context(
        estimator.context_schema_.layout, found, estimator.context_scale_()(found.values)
    )
    return None if c is None or not c.shape[1] else c  # constants say nothing


def scale_of(values: Tensor) -> Standardize:
    """What standardises the numbers of a context, constants to 0."""
    spread = values.var(0, correction=0).sqrt() if values.numel() else values.new_zeros(0)
    return Standardize(values.mean(0), torch.where(spread > 0, spread, 1))
