"""Bounds of features that the file of a table gives, as those of a prior."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from maskedflow.sources import CellError, Source
from maskedflow.transforms import Bounds

from .discrete import Cells

Ends = Mapping[str, tuple[float, float]]
"""The lowest and highest value of columns by name, infinite without an end."""


def bounds_map(ends: Ends, columns: Sequence[str], dtype: torch.dtype) -> Bounds:
    """The map of bounded features to the real line, and of others to themselves."""
    none = (-math.inf, math.inf)
    low, high = (
        torch.tensor(bounds, dtype=dtype)
        for bounds in zip(*(ends.get(name, none) for name in columns), strict=True)
    )
    return Bounds(low, high)


def reaches(
    x: Tensor, columns: Sequence[str], ends: Ends, errors: Mapping[str, str] | None = None
) -> str | None:
    """The first column that has a number at or beyond a bound, in the precision of x.

    What was measured with an error may lie there; errors are the last columns of x.

    Example:
        >>> x = torch.tensor([[0.5, 1.0]])
        >>> reaches(x, ("a", "b"), {"a": (0.0, 1.0)}), reaches(x, ("a", "b"), {"b": (0.0, 1.0)})
        (None, 'b')
    """
    for name in columns:
        if name in ends:
            column = _exact(x, columns, name, errors or {})
            low, high = torch.tensor(ends[name], dtype=x.dtype)
            if (column <= low).any() or (column >= high).any():
                return name
    return None


def bounds_within(
    x: Tensor,
    columns: Sequence[str],
    source: Source,
    cells: Cells | None,
    errors: Mapping[str, str],
) -> dict[str, tuple[float, float]]:
    """The bounds of a source that a flow of these columns has to respect.

    Features on a grid never leave the range of the rows, and need none.

    Raises:
        CellError: If a number without an error is not between them.
    """
    steps = [0.0] * len(columns) if cells is None else cells.step.tolist()
    ends = {
        name: source.bounds[name]
        for name, step in zip(columns, steps, strict=True)
        if name in source.bounds and not step
    }
    name = reaches(x, columns, ends, errors)
    if name is not None:
        low, high = ends[name]
        column = _exact(x, columns, name, errors)
        least, most = column.amin().item(), column.amax().item()
        found = least if least <= low else most
        sides = (f"above {low:g}", f"below {high:g}")
        finite = [side for side, end in zip(sides, ends[name], strict=True) if math.isfinite(end)]
        expected = f"numbers {' and '.join(finite)}, where its prior ends"
        raise CellError(source.path, name, None, expected, f"{found:.10g}", "bounds")
    return ends


def _exact(x: Tensor, columns: Sequence[str], name: str, errors: Mapping[str, str]) -> Tensor:
    """The numbers of a column in rows without an error of it."""
    column = x[:, list(columns).index(name)]
    if name not in errors:
        return column
    return column[x[:, list(errors).index(name) - len(errors)] == 0]
