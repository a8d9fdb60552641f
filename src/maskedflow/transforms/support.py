"""Where a transform or a density is defined, and a place that is sure to be."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from maskedflow.staircase import is_traced


def outside(constraint: constraints.Constraint, x: Tensor) -> Tensor | None:
    """Which points a constraint excludes, with the batch shape of x; None if it excludes none.

    NaN is not outside: whatever made it, a density of zero must not hide it.

    Example:
        >>> outside(constraints.positive, torch.tensor([1.0, -1.0, torch.nan]))
        tensor([False,  True, False])
        >>> outside(constraints.real, torch.tensor([1.0]))
    """
    if _is_everywhere(constraint):
        return None
    nan = x.isnan()
    if constraint.event_dim:
        nan = nan.flatten(-constraint.event_dim).any(dim=-1)
    wrong: Tensor = ~(constraint.check(x) | nan)
    return wrong if is_traced() or bool(wrong.any()) else None


def _is_everywhere(constraint: constraints.Constraint) -> bool:
    if constraint is constraints.real or constraint is constraints.real_vector:
        return True
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint is constraints.real or constraints.is_dependent(constraint)


def moved_inside(constraint: constraints.Constraint, x: Tensor, wrong: Tensor) -> Tensor:
    """The same points, with one inside in place of those outside: no gradient sees these.

    Example:
        >>> x = torch.tensor([2.0, -1.0])
        >>> moved_inside(constraints.positive, x, x < 0)
        tensor([2., 1.])
    """
    try:
        to_inside = transform_to(constraint)
    except NotImplementedError:  # torch does not know the way
        return x
    inner = to_inside(x.new_zeros(to_inside.inverse_shape(x.shape)))
    return torch.where(wrong.reshape([*wrong.shape, *[1] * constraint.event_dim]), inner, x)
