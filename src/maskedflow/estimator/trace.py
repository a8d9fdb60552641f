"""Which rows an estimator has seen, in whatever frame they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from maskedflow.data import Fingerprint, Seen, Trace
from maskedflow.data.split import Array
from maskedflow.tables import Rows, to_rows

if TYPE_CHECKING:
    from .estimator import DensityEstimator

__all__ = ["seen_by", "trace_of"]

_TURNS = 4096.0
"""Parts of a radian that angles are told apart by: single and double precision turn differently."""


def trace_of(estimator: DensityEstimator, rows: Rows, given: Rows | None) -> Trace:
    """What is to be remembered of the rows that an estimator is fitted to."""
    return Trace(Fingerprint.of(*_columns(estimator, rows, given)))


def seen_by(
    estimator: DensityEstimator, table: pa.Table, given: pa.Table | None = None
) -> Seen | None:
    """How many of some rows an estimator was fitted to; None if that is not known.

    Args:
        estimator: The estimator.
        table: The rows, as Arrow's.
        given: Their contexts, if the density is conditional.
    """
    trace: Trace | None = getattr(estimator, "trace_", None)
    if trace is None:
        return None
    contexts = None
    if given is not None and estimator.context_schema_ is not None:
        contexts = to_rows(estimator.context_schema_, given, strict=False)
    columns, _ = _columns(estimator, to_rows(estimator.schema_, table), contexts)
    return trace.seen(columns)


def _columns(
    estimator: DensityEstimator, rows: Rows, given: Rows | None
) -> tuple[list[Array], list[Array]]:
    """What makes a row, the same from all kinds of frames, and its quantities."""
    columns: list[Array] = []
    numbers: list[Array] = []
    for schema, some in ((estimator.schema_, rows), (estimator.context_schema_, given)):
        if schema is None or some is None:
            continue
        with np.errstate(over="ignore"):  # what is too large for float32 is all alike
            values = [
                x if step else x.astype(np.float32)
                for x, step in zip(some.values.numpy().T, schema.steps, strict=True)
            ]
        angles = list(np.rint(_TURNS * some.angles.numpy()).T)
        observed = [*some.observed.numpy().T, *some.angles_observed.numpy().T]
        columns += [*some.codes.numpy().T, *values, *angles, some.impossible.numpy()]
        pairs: Any = zip((*values, *angles), observed, strict=True)
        numbers += [np.where(there, x, np.nan) for x, there in pairs]
    return columns, numbers
