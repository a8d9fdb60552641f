"""Plans, plain values that a file can hold, and how the density of a table is made by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, NotRequired

import torch
from annotated_types import Ge
from pydantic import StringConstraints, with_config
from torch import Tensor
from typing_extensions import TypedDict

from maskedflow.columns.rows import Layout
from maskedflow.files import CLOSED, Count, Finite, Size
from maskedflow.flows import NCSF, Flow, LazyDistribution, MaskedAutoregressiveTransform
from maskedflow.flows.flow import standard_normal
from maskedflow.flows.stack import Stack
from maskedflow.transforms import (
    LazyComposedTransform,
    LazyTransform,
    MonotonicAffineTransform,
    MonotonicRQSTransform,
    NormalScores,
    Standardize,
)
from maskedflow.transforms.whiten import Whiten

from .boosted import BoostedChain, ChainSize
from .bounds import column_maps
from .categories import AutoregressiveCategorical
from .circular import AutoregressiveVonMises
from .density import TableDensity, present_columns
from .fronted import FrontedFlow
from .heaps import Heaps
from .missing import PartialFlow
from .mixture import MixtureOfRegressions
from .products import MixtureOfProducts


@with_config(CLOSED)
class _Front(TypedDict):
    """What comes before the layers: marginal maps of so many knots, and whitening."""

    knots: Count
    whiten: bool
    scale: NotRequired[bool]


@with_config(CLOSED)
class _Chain(TypedDict):
    """How large the tensors of a boosted chain are."""

    cells: Size
    trees: Count
    nodes: Count
    splits: Count


@with_config(CLOSED)
class _Products(TypedDict):
    """A mixture of products: how many there are, and whether they have bounds."""

    components: Size
    truncated: bool


@with_config(CLOSED)
class _Heaps(TypedDict):
    """How large the tables of a map of heaps are."""

    columns: Size
    left_out: Count
    bands: Size
    widths: Size
    popular: Size


@with_config(CLOSED)
class MemberPlan(TypedDict):
    """One density of the values: a letter for each layer, or a mixture of Gaussians."""

    front: _Front
    layers: NotRequired[Annotated[str, StringConstraints(pattern=r"\A[as]*\z", max_length=1000)]]
    hidden: NotRequired[Count]
    seed: NotRequired[Count]
    components: NotRequired[Count]
    slopes: NotRequired[bool]
    tables: NotRequired[bool]
    chain: NotRequired[_Chain]
    products: NotRequired[_Products]


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
    """How :func:`build_density` makes a density, as a file holds it."""

    context: Count
    given: NotRequired[Count]
    work: NotRequired[Finite]
    interrupted: NotRequired[bool]
    categories: NotRequired[_Categories]
    heaps: NotRequired[_Heaps]
    members: NotRequired[list[MemberPlan]]
    angles: NotRequired[list[_Angles]]


_OLD_CATEGORIES: _Categories = {"hidden": 64}
"""What plans of the first versions mean, which say nothing of categories."""
_BINS = 8
_LAYERS: dict[str, dict[str, Any]] = {
    # Scales between a tenth and ten: samples beyond the data do not run away.
    "a": {"univariate": partial(MonotonicAffineTransform, slope=0.1)},
    "s": {"univariate": MonotonicRQSTransform, "shapes": [(_BINS,), (_BINS,), (_BINS - 1,)]},
}
"""The letters of a plan's layers: affine maps and splines."""


def numbers_of(layout: Layout, plan: Plan) -> int:
    """Counts the numbers that the density of a plan has at least, without building it."""
    features, given = max(len(layout.value_state), 1), plan.get("given", 0)
    network = plan.get("categories", _OLD_CATEGORIES)["hidden"] or 0
    total = sum(layout.levels) * network + plan["context"]
    for angles in plan.get("angles", []):
        count = len(layout.angle_state)
        read = 2 * count + sum(layout.levels) + plan["context"]
        widths = [read, *angles["hidden"], 3 * angles["components"] * count]
        total += sum(before * after for before, after in pairwise(widths))
    heaps = plan.get("heaps")
    if heaps is not None:
        total += heaps["widths"] + heaps["columns"] * (heaps["bands"] + heaps["popular"])
    for member in plan.get("members", []):
        front, hidden = member["front"], member.get("hidden", 0)
        slopes = given * member.get("slopes", 0)
        total += front["knots"] * features + front["whiten"] * features * (features + given)
        total += len(member.get("layers", "")) * hidden * (features + given + hidden)
        codes = sum(layout.levels) * member.get("tables", 0)
        chain = member.get("chain", {})
        total += chain.get("nodes", 0) + 4 * chain.get("splits", 0) + chain.get("trees", 0)
        products = member.get("products", {}).get("components", 0)
        total += products * (1 + sum(layout.levels) + 2 * (features + given - sum(layout.levels)))
        total += member.get("components", 0) * (features * (features + slopes) + codes)
    return total


def build_density(layout: Layout, plan: Mapping[str, Any]) -> TableDensity:
    """Makes a density by the `plan` of one that was fitted, its numbers to be loaded."""
    context = plan["context"]
    categories = angles = None
    if layout.levels:
        found = plan.get("categories", _OLD_CATEGORIES)
        categories = build_categories(layout.levels, context, found)
    if layout.angle_state:
        angles = build_angles(layout, sum(layout.levels) + context, plan)
    members = [build_member(layout, plan["given"], one) for one in plan.get("members", ())]
    numbers = None
    if members:
        heaps = Heaps.empty(**plan["heaps"]) if "heaps" in plan else None
        numbers = stack_of(layout, members, torch.ones(len(members)), heaps)
    density = TableDensity(layout, categories, angles, numbers)
    density.plan = dict(plan)
    return density.double()


def build_categories(
    levels: Sequence[int], context: int, plan: Mapping[str, Any]
) -> AutoregressiveCategorical:
    """Makes the distribution of the codes."""
    hidden = plan["hidden"]
    return AutoregressiveCategorical(
        levels,
        context,
        None if hidden is None else (hidden, hidden),
        plan.get("parents"),
        generator=torch.Generator().manual_seed(plan.get("seed", 0)),
    )


def build_angles(layout: Layout, context: int, plan: Mapping[str, Any]) -> LazyDistribution:
    """Makes the density of the angles."""
    present = present_columns(layout)[0]
    if "angles" not in plan:  # as in the first versions
        flow = NCSF(len(present), context, transforms=2, hidden_features=(64, 64), periodic=False)
        return PartialFlow([flow.transform], flow.base, present)
    members = [
        AutoregressiveVonMises(present, context, one["components"], one["hidden"])
        for one in plan["angles"]
    ]
    return Stack(members, torch.ones(len(members)))


def build_member(layout: Layout, given: int, plan: Mapping[str, Any]) -> LazyDistribution:
    """Makes one density of the values."""
    features, front, components = len(layout.value_state), plan["front"], plan.get("components", 0)
    steps: list[LazyTransform] = []
    if front.get("scale"):
        steps.append(Standardize(torch.zeros(features), torch.ones(features)))
    if front["knots"]:
        knots = torch.arange(front["knots"]).expand(features, -1).float()
        steps.append(NormalScores(knots, knots.clone(), torch.ones_like(knots)))
    eye = torch.eye(features)
    if front["whiten"]:
        slopes = torch.zeros(features, given) if given else None
        steps.append(Whiten(torch.zeros(features), eye, slopes))
    base: LazyDistribution | None = None
    if components:
        loc, factors = torch.zeros(components, features), eye.expand(components, -1, -1).clone()
        slopes = torch.zeros(components, features, given) if plan.get("slopes") else None
        codes = sum(layout.levels)
        tables = torch.zeros(components, codes) if plan.get("tables") else None
        # Those of the first versions, without tables, are of numbers that are never absent.
        present = () if front["whiten"] else present_columns(layout)[1]
        base = MixtureOfRegressions(torch.zeros(components), loc, factors, slopes, tables, present)
    if plan.get("chain"):
        size, present = ChainSize(**plan["chain"]), present_columns(layout)[1]
        base = BoostedChain(layout.levels, present, given - sum(layout.levels), size)
    if plan.get("products"):
        given_numbers, present = given - sum(layout.levels), present_columns(layout)[1]
        found = plan["products"]
        base = MixtureOfProducts(
            found["components"], present, layout.levels, given_numbers, found["truncated"]
        )
    hidden, seed = plan.get("hidden", 0), plan.get("seed", 0)
    layers = build_layers(features, given, plan.get("layers", ""), hidden, seed)
    return assemble(layout, steps, layers, base)


def stack_of(
    layout: Layout, members: Sequence[LazyDistribution], weights: Tensor, heaps: Heaps | None
) -> LazyDistribution:
    """Makes the density of numbers of its members, behind a map of heaps if there is one."""
    stack = Stack(members, weights)
    return stack if heaps is None else FrontedFlow([heaps], stack, present_columns(layout)[1])


def build_layers(
    features: int, context: int, letters: str, hidden: int, seed: int
) -> list[LazyTransform]:
    """Makes autoregressive layers, each of a random order, that start near the identity."""
    generator = torch.Generator().manual_seed(seed)
    made: list[LazyTransform] = []
    for letter in letters:
        layer = MaskedAutoregressiveTransform(
            features,
            context,
            order=torch.randperm(features, generator=generator),
            hidden_features=[hidden] * 2,
            residual=True,
            generator=generator,
            **_LAYERS[letter],
        )
        with torch.no_grad():
            for parameter in layer.hyper.layers[-1].parameters():
                parameter.mul_(0.1)
        made.append(layer)
    return made


def assemble(
    layout: Layout,
    front: Sequence[LazyTransform],
    layers: Sequence[LazyTransform] = (),
    base: LazyDistribution | None = None,
) -> LazyDistribution:
    """Puts a member together, from the columns' own units to its base."""
    steps = [column_maps(layout), *front, *layers]
    present = present_columns(layout)[1]
    if base is None:
        return PartialFlow(steps, standard_normal(len(present)), present)
    if not (front and isinstance(front[-1], Whiten)):
        return FrontedFlow(steps, base, present)
    return Flow(LazyComposedTransform(*steps), base)
