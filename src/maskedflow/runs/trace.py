"""Which rows a run has seen, as far as its checkpoint remembers them."""

from __future__ import annotations

from maskedflow.data import Dataset, Fingerprint, Seen, Split, Trace, windows
from maskedflow.data.split import Array, columns_of

__all__ = ["STEPS", "seen_by", "trace_of"]

STEPS = 8
"""The steps of a time series that are known again together: one alone may be there by chance."""


def trace_of(dataset: Dataset) -> Trace:
    """What is to be remembered of a data set's rows."""
    validation = _fingerprint(dataset.validation, dataset.window)
    if dataset.streamed is not None:
        return Trace(dataset.streamed.fingerprint, validation)
    return Trace(_fingerprint(dataset.train, dataset.window), validation)


def seen_by(
    trace: Trace | None, split: Split, window: int | None = None, what: str = "rows"
) -> Seen | None:
    """How many of some rows a run was made with; None if that is not known.

    Args:
        trace: What the run remembers.
        split: The rows.
        window: The steps of a window, of a time series.
        what: What the rows are called.
    """
    if trace is None or (window is not None and len(split) < STEPS):
        return None
    if window is not None:
        what = f"stretches of {STEPS} steps"
    return trace.seen(_columns(split, window), what)


def _fingerprint(split: Split, window: int | None) -> Fingerprint:
    columns = _columns(split, window)
    return Fingerprint.of(columns, columns)


def _columns(split: Split, window: int | None) -> list[Array]:
    if window is not None:
        split = Split(windows(split.x, min(STEPS, len(split))).flatten(1))
    return columns_of(split)
