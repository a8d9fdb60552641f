"""The maps of a table's bounded numbers to the real line."""

from __future__ import annotations

import math

import torch

from maskedflow.columns.rows import Layout
from maskedflow.transforms import Bounds

#: Of a discretised column's cells, what is left free between the outermost ones and the bounds.
MARGIN = 1e-3


def column_maps(layout: Layout) -> Bounds:
    """The maps of a table's value columns to the real line, in float64.

    A discretised column is spread over its cells, which its bounds include. A thousandth of a step
    is left free on either side, so that no draw meets the bound.

    Example:
        >>> layout = Layout((), (None,), (), (1.0,), (0.0,), (10.0,))
        >>> bounds = column_maps(layout)
        >>> bounds.low, bounds.high
        (tensor([-0.0010], dtype=torch.float64), tensor([10.0010], dtype=torch.float64))
    """
    step = torch.tensor(layout.steps, dtype=torch.float64)
    low = [-math.inf if bound is None else bound for bound in layout.lows]
    high = [math.inf if bound is None else bound for bound in layout.highs]
    return Bounds(
        torch.tensor(low, dtype=torch.float64) - MARGIN * step,
        torch.tensor(high, dtype=torch.float64) + MARGIN * step,
        torch.tensor(layout.edges, dtype=torch.float64) if any(layout.edges) else None,
    )
