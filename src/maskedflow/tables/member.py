"""A member of a stack: a density of numbers that was fitted, with the plan to build it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from maskedflow.columns.rows import Layout
from maskedflow.files import blame, check
from maskedflow.flows import LazyDistribution
from maskedflow.transforms import LazyTransform, NormalScores, Standardize
from maskedflow.transforms.whiten import Whiten

from .checkpoints import Finished, Step
from .plan import MemberPlan, Plan, build_member, numbers_of


@dataclass(frozen=True)
class Member:
    """A density that was fitted, with the plan to build it again."""

    plan: dict[str, Any]
    density: LazyDistribution

    @property
    def step(self) -> Step:
        """What a step of a search keeps of it."""
        return {"plan": self.plan}, self.density.state_dict()

    @classmethod
    def of(cls, done: Finished, layout: Layout, given: int) -> Self | None:
        """Builds what a step of a search has fitted; None if it was nothing.

        Raises:
            ValueError: If plan and numbers, read from a file, do not belong together.
        """
        with blame(done.path, "not a step of this search"):
            plan = done.plain["plan"]
            if plan is None:
                return None
            members = [check(MemberPlan, plan)]
            alone: Plan = {"context": 0, "given": given, "members": members}
            announced = numbers_of(layout, {**alone, "categories": {"hidden": None}})
            if announced > sum(tensor.numel() for tensor in done.tensors.values()):
                raise ValueError(f"plan: of {announced:,} numbers at least")
        return cls(plan, done.load(lambda: build_member(layout, given, plan)))


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
