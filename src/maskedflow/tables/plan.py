"""What a plan of a table's density may say, and how large the density is at least."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, NotRequired

from annotated_types import Ge
from pydantic import StringConstraints, with_config
from typing_extensions import TypedDict

from maskedflow.columns.rows import Layout
from maskedflow.files import CLOSED, Count, Finite, Size

__all__ = ["Plan", "numbers_of"]


@with_config(CLOSED)
class _Front(TypedDict):
    """What comes before the layers: marginal maps of so many knots, and whitening."""

    knots: Count
    whiten: bool


@with_config(CLOSED)
class _Member(TypedDict):
    """One density of the numbers: layers of networks, or a mixture of Gaussians."""

    front: _Front
    layers: NotRequired[Annotated[str, StringConstraints(pattern=r"\A[as]*\z", max_length=1000)]]
    hidden: NotRequired[Count]
    seed: NotRequired[Count]
    components: NotRequired[Count]
    slopes: NotRequired[bool]


@with_config(CLOSED)
class _Categories(TypedDict):
    """The distribution of the codes: tables of frequencies, and a network."""

    hidden: Size | None
    parents: NotRequired[list[Annotated[int, Ge(-1)]]]
    seed: NotRequired[Count]


@with_config(CLOSED)
class _Angles(TypedDict):
    """One density of the angles."""

    hidden: list[Size]
    components: Size


@with_config(CLOSED)
class Plan(TypedDict):
    """How :func:`~maskedflow.tables.build_density` makes a density, as a file holds it."""

    context: Count
    given: NotRequired[Count]
    work: NotRequired[Finite]
    categories: NotRequired[_Categories]
    members: NotRequired[list[_Member]]
    angles: NotRequired[list[_Angles]]


def numbers_of(layout: Layout, plan: Plan) -> int:
    """Counts the numbers that the density of a plan has at least, without building it.

    Args:
        layout: What the columns are.
        plan: The plan.

    Example:
        >>> layout = Layout((), (None, None), (), (0.0, 0.0), (None, None), (None, None))
        >>> front = {"knots": 100, "whiten": True}
        >>> numbers_of(layout, {"context": 0, "given": 0, "members": [{"front": front}]})
        204
    """
    features, given = max(len(layout.value_state), 1), plan.get("given", 0)
    network = plan.get("categories", {"hidden": 64})["hidden"] or 0
    total = sum(layout.levels) * network + plan["context"]
    for angles in plan.get("angles", []):
        count = len(layout.angle_state)
        read = 2 * count + sum(layout.levels) + plan["context"]
        widths = [read, *angles["hidden"], 3 * angles["components"] * count]
        total += sum(before * after for before, after in pairwise(widths))
    for member in plan.get("members", []):
        front, hidden = member["front"], member.get("hidden", 0)
        total += front["knots"] * features + front["whiten"] * features * (features + given)
        total += len(member.get("layers", "")) * hidden * (features + given + hidden)
        total += (
            member.get("components", 0) * features * (features + given * member.get("slopes", 0))
        )
    return total
