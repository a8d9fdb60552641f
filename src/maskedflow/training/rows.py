"""What training takes for rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maskedflow.data import Split, StreamedSplit
from maskedflow.data.dealing import deal_rows
from maskedflow.flows import Flow

from .batches import Training, check_finite, in_memory

Numbers = Tensor | NDArray[Any]
"""Numbers in memory."""

Rows = Split | Numbers | tuple[Numbers, Numbers | None]
"""Rows in memory: a :class:`~maskedflow.data.Split`, x alone, or the pair (x, context)."""

HELD_OUT = 10
"""One row in so many validates where no others are given."""


def splits_of(train: Rows | Training, validation: Rows | None, seed: int) -> tuple[Training, Split]:
    """The rows that train and those that validate, a tenth of the former if there are no others.

    Raises:
        TypeError: If something else than rows is given.
        ValueError: If there are none, numbers are not finite or shapes do not go together.
    """
    rows = train if isinstance(train, StreamedSplit) else split_of(train, "train")
    check_finite(in_memory(rows), "train")
    if validation is not None:
        judges = split_of(validation, "validation")
        check_finite(judges, "validation")
        _check_alike(in_memory(rows), judges)
    elif isinstance(rows, StreamedSplit):
        raise ValueError("validation: expected rows, as those that train stay on disk, got None")
    else:
        rows, judges = _hold_out(rows, seed)
    return rows if isinstance(rows, StreamedSplit) else _relative(rows), judges


def _relative(rows: Split) -> Split:
    """The rows that count, by weights whose mean is 1; by none if all are alike."""
    if rows.weight is None:
        return rows
    rows = _counting(rows)
    mass = rows.mass / rows.mass.max()
    return replace(rows, weight=None if (mass == 1).all() else mass / mass.mean())


def _counting(rows: Split) -> Split:
    """The rows whose weight is not 0."""
    return rows if rows.weight is None else rows[rows.weight > 0]


def _hold_out(rows: Split, seed: int) -> tuple[Split, Split]:
    """The rows that are left and those that validate, with copies of a row on one side.

    Rows of weight 0 are in neither.
    """
    rows = _counting(rows)
    size = max(len(rows) // HELD_OUT, 1)
    if len(rows) <= size:
        raise ValueError(f"train: expected rows to train and to validate, got {len(rows)} in all")
    columns = [column.numpy(force=True) for column in rows.x.flatten(1).unbind(1)]
    (train, validation), _ = deal_rows(columns, columns, [len(rows) - size, size], seed, "values")
    return rows[train], rows[validation]


def check_context(flow: nn.Module, train: Training) -> None:
    """Refuses one number a row for the context of a flow that has no network to embed it."""
    c = in_memory(train).context
    if c is not None and c.ndim == 1 and isinstance(flow, Flow) and flow.embedding is None:
        raise ValueError(f"train.context: expected shape (n, context), got ({len(c)},)")


def split_of(rows: Rows, name: str) -> Split:
    """Rows as a split, in the dtype that they have."""
    if isinstance(rows, Split):
        return rows
    parts = rows if isinstance(rows, tuple) else (rows, None)
    if len(parts) != 2:
        raise TypeError(f"{name}: expected a pair (x, context), got a tuple of {len(parts)}")
    x, c = (None if part is None else _tensor(part, name) for part in parts)
    if x is None:
        raise TypeError(f"{name}: expected numbers x, got None")
    try:
        return Split(x, c)
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from None


def _tensor(values: Any, name: str) -> Tensor:
    """Numbers as a tensor."""
    if isinstance(values, Tensor):
        if values.is_complex():
            raise TypeError(f"{name}: expected real numbers, got {values.dtype}")
        return values.detach()
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        if np.ma.is_masked(values):
            raise ValueError(f"{name}: expected numbers everywhere, got masked cells")
        # A copy: torch takes no foreign byte order, and warns of memory that is read-only.
        return torch.from_numpy(np.array(values, values.dtype.newbyteorder("=")))
    what = type(values).__name__
    if isinstance(values, np.ndarray):
        what += f" of {values.dtype}"
    raise TypeError(
        f"{name}: expected a tensor or array of numbers, a pair (x, context) of them, or a Split, "
        f"got {what}"
    )


def _check_alike(train: Split, validation: Split) -> None:
    """Refuses validation rows of another shape than the training rows."""
    for part in ("x", "context"):
        wanted, found = (_shape(getattr(split, part)) for split in (train, validation))
        if wanted != found:
            raise ValueError(f"validation.{part}: expected {wanted} as in train, got {found}")


def _shape(values: Tensor | None) -> str:
    return "none" if values is None else f"shape (n, {', '.join(map(str, values.shape[1:]))})"
