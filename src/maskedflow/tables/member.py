"""A member of a stack: a density of numbers that was fitted, with the plan to build it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskedflow.flows import LazyDistribution
from maskedflow.transforms import LazyTransform, NormalScores, Standardize
from maskedflow.transforms.whiten import Whiten


@dataclass(frozen=True)
class Member:
    """A density that was fitted, with the plan to build it again."""

    plan: dict[str, Any]
    density: LazyDistribution


def front_plan(front: Sequence[LazyTransform]) -> dict[str, Any]:
    """How to build a front again."""
    knots = next((step.x.shape[1] for step in front if isinstance(step, NormalScores)), 0)
    plan: dict[str, Any] = {
        "knots": knots,
        "whiten": any(isinstance(step, Whiten) for step in front),
    }
    if any(isinstance(step, Standardize) for step in front):
        plan["scale"] = True
    return {"front": plan}
