"""Roots of increasing functions, a whole tensor of them at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from maskedflow.staircase import is_traced

__all__ = ["ValueAndSlope", "find_root"]

#: Returns f(x) and f'(x), element by element.
ValueAndSlope = Callable[[Tensor], tuple[Tensor, Tensor]]

#: How much a bracket that holds no root grows at a time, and how often: up to float32's largest.
GROWTH, MOST_GROWTHS = 64, 22
#: Enough to halve any bracket down to its rounding, even if every other step is Newton's.
MOST_STEPS = 120


def find_root(
    f: Callable[[Tensor], Tensor],
    value_and_slope: ValueAndSlope,
    y: Tensor,
    bound: float,
    eps: float,
) -> Tensor:
    r"""Solves f(x) = y for an increasing f that reaches every y, to the precision of the dtype.

    The root is bracketed in :math:`[-B, B]`, or further out if it lies there. Newton's steps
    then halve the steps before them, or the bracket is halved. The two last steps
    are Newton's, seen by autograd, so that x has gradients by whatever y and f depend on: a step
    from a constant start is right in the first derivative, two are in the second, too.

    Args:
        f: Returns the value of f.
        value_and_slope: Returns the value and the slope of f.
        y: The values, with shape (*,).
        bound: The first bracket's bound B.
        eps: The step from which on two steps of Newton's method are enough.

    Returns:
        The roots x, with the shape of f(y).

    Example:
        >>> y = torch.tensor([-27.0, 8e6])
        >>> find_root(lambda x: x**3, lambda x: (x**3, 3 * x**2), y, 10.0, 1e-6)
        tensor([ -3., 200.])
    """
    with torch.no_grad():
        x = _search(f, value_and_slope, y.detach(), bound, eps)
    tiny = torch.finfo(y.dtype).tiny
    for _ in range(2):
        value, slope = value_and_slope(x)
        x = x - (value - y) / slope.clamp(min=tiny)
    return x


def _search(
    f: Callable[[Tensor], Tensor],
    value_and_slope: ValueAndSlope,
    y: Tensor,
    bound: float,
    eps: float,
) -> Tensor:
    low, high = _bracket(f, y, bound)
    x, precision = low / 2 + high / 2, 4 * torch.finfo(y.dtype).eps
    step = step_before = high - low
    for _ in range(MOST_STEPS):
        value, slope = value_and_slope(x)
        is_above = value > y
        low, high = torch.where(is_above, low, x), torch.where(is_above, x, high)
        newton = x - (value - y) / slope
        # False where the slope is 0 or something is NaN, too.
        is_good = (low <= newton) & (newton <= high) & (2 * (newton - x).abs() <= step_before)
        new = torch.where(is_good, newton, low / 2 + high / 2)
        step, step_before, x = (new - x).abs(), step, new
        if not is_traced() and (step <= eps + precision * x.abs()).all():
            break
    return x


def _bracket(f: Callable[[Tensor], Tensor], y: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """The ends of intervals that hold the roots."""
    shape = f(torch.full_like(y, -bound)).shape  # parameters may broadcast against y
    low, high = y.new_full(shape, -bound), y.new_full(shape, bound)
    furthest = torch.finfo(y.dtype).max / 4
    for _ in range(MOST_GROWTHS):
        is_below, is_above = f(low) > y, f(high) < y
        if not is_traced() and not (is_below | is_above).any():
            break
        low, high = (
            torch.where(is_below, (GROWTH * low).clamp(min=-furthest), low.where(~is_above, high)),
            torch.where(is_above, (GROWTH * high).clamp(max=furthest), high.where(~is_below, low)),
        )
    return low, high
