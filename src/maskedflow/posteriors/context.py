"""What a density is conditional on, given in whatever form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from maskedflow.columns import kind_of, to_arrow

Context = Tensor | Sequence[Any] | Mapping[str, Any]
"""What a density is conditional on: values in their order, or by the names of their columns."""


def refuse(context: Any = None, x: Any = None) -> None:
    """Refuses a context or an observation where there is none to be given."""
    if context is not None:
        raise ValueError(
            "context: expected none here: only flows, estimators and runs have a context"
        )
    if x is not None:
        raise ValueError("x: expected none here: only posteriors have an observation")


def row_of(context: Any, names: Sequence[str]) -> pa.Table | None:
    """The context of columns that have names as one row of them, None if there are none.

    Args:
        context: Values in their order, by their names, or a frame of one row.
        names: The names.

    Raises:
        ValueError: If it is none of these, or of other columns.
    """
    wanted = ", ".join(names)
    if not names:
        if context is not None:
            raise ValueError("context: expected none")
        return None
    if context is None:
        raise ValueError(f"context: expected one row of {wanted}, got none")
    if kind_of(context) == "numpy":
        values = context.tolist() if isinstance(context, Tensor) else context
        cells = np.asarray(values, object).ravel().tolist()
        if len(cells) != len(names):
            raise ValueError(f"context: expected one row of {wanted}, got {len(cells)} values")
        context = dict(zip(names, cells, strict=True))
    if isinstance(context, Mapping):
        context = {name: cell if np.ndim(cell) else [cell] for name, cell in context.items()}
    row = to_arrow(context, "context")
    if not set(names) <= set(row.column_names):
        raise ValueError(f"context: expected {wanted}, got {', '.join(row.column_names)}")
    if row.num_rows != 1:
        raise ValueError(f"context: expected one row of {wanted}, got {row.num_rows}")
    return row.select(list(names))


def contexts_of(context: Any, names: Sequence[str]) -> Callable[[int], pa.Table | None]:
    """Makes n rows of one context."""
    row = row_of(context, names)
    return lambda n: None if row is None else row.take(np.zeros(n, np.int64))
