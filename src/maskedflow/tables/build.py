"""From a plan, plain values that a file can hold, to the density of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maskedflow.columns.rows import Layout
from maskedflow.distributions import MixtureOfGaussians
from maskedflow.flows import (
    NCSF,
    Flow,
    LazyDistribution,
    MaskedAutoregressiveTransform,
    UnconditionalDistribution,
)
from maskedflow.flows.flow import standard_normal
from maskedflow.flows.stack import Stack
from maskedflow.transforms import (
    LazyComposedTransform,
    LazyTransform,
    MonotonicAffineTransform,
    MonotonicRQSTransform,
    NormalScores,
)
from maskedflow.transforms.whiten import Whiten

from .bounds import column_maps
from .categories import AutoregressiveCategorical
from .circular import AutoregressiveVonMises
from .density import TableDensity, present_columns
from .partial import PartialFlow
from .regressions import MixtureOfRegressions

__all__ = ["build_categories", "build_density", "build_layers", "build_mixture"]

_BINS = 8
_LAYERS: dict[str, dict[str, Any]] = {
    # Scales between a tenth and ten: samples beyond the data do not run away.
    "a": {"univariate": partial(MonotonicAffineTransform, slope=0.1)},
    "s": {"univariate": MonotonicRQSTransform, "shapes": [(_BINS,), (_BINS,), (_BINS - 1,)]},
}
"""The letters of a plan's layers: affine maps and splines."""


def build_layers(
    features: int, context: int, layers: str, hidden: int, seed: int
) -> list[LazyTransform]:
    """Makes autoregressive layers, each of a random order, that start near the identity.

    Args:
        features: The number of features.
        context: The number of context features.
        layers: A letter a layer: "a" for affine maps, "s" for splines.
        hidden: The width of the residual networks.
        seed: Seed of orders and first weights.
    """
    generator = torch.Generator().manual_seed(seed)
    made: list[LazyTransform] = []
    for letter in layers:
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


def build_categories(
    levels: Sequence[int], context: int, plan: Mapping[str, Any]
) -> AutoregressiveCategorical:
    """Makes the distribution of the codes.

    Args:
        levels: The number of levels of each column.
        context: The number of context features.
        plan: The width of its network or None, the `parents` of its tables, and a seed.
    """
    hidden = plan["hidden"]
    return AutoregressiveCategorical(
        levels,
        context,
        None if hidden is None else (hidden, hidden),
        plan.get("parents"),
        generator=torch.Generator().manual_seed(plan.get("seed", 0)),
    )


def build_angles(
    present: Sequence[int | None], context: int, plan: Sequence[dict[str, Any]]
) -> Stack:
    """Makes the density that a plan tells of, its numbers to be loaded."""
    members = [
        AutoregressiveVonMises(present, context, one["components"], one["hidden"]) for one in plan
    ]
    return Stack(members, torch.ones(len(members)))


def _angles(layout: Layout, context: int, plan: Mapping[str, Any]) -> LazyDistribution:
    """Makes the density of the angles; of a plan of earlier builds, which says nothing of it."""
    present = present_columns(layout)[0]
    if "angles" in plan:
        return build_angles(present, context, plan["angles"])
    flow = NCSF(len(present), context, transforms=2, hidden_features=(64, 64), periodic=False)
    return PartialFlow([flow.transform], flow.base, present)


def build_mixture(
    logits: Tensor, loc: Tensor, scale_tril: Tensor, slopes: Tensor | None = None
) -> LazyDistribution:
    """Makes a mixture of Gaussians that is fitted already, or of regressions on a context."""
    if slopes is not None:
        return MixtureOfRegressions(logits, loc, scale_tril, slopes)
    return UnconditionalDistribution(
        MixtureOfGaussians, logits=logits, loc=loc, scale_tril=scale_tril, buffer=True
    )


def build_density(layout: Layout, plan: Mapping[str, Any]) -> TableDensity:
    """Makes the density that a plan tells of, its numbers to be loaded.

    Args:
        layout: What the columns are.
        plan: The `plan` of the density that was fitted.
    """
    context, features = plan["context"], len(layout.value_state)
    categories = angles = None
    if layout.levels:
        # Plans of earlier versions say nothing of categories: all had such a network.
        told = plan.get("categories", {"hidden": 64})
        categories = build_categories(layout.levels, context, told)
    if layout.angle_state:
        angles = _angles(layout, sum(layout.levels) + context, plan)
    members = [
        build_member(layout, plan["given"], features, **one) for one in plan.get("members", ())
    ]
    numbers = Stack(members, torch.ones(len(members))) if members else None
    density = TableDensity(layout, categories, angles, numbers)
    density.plan = dict(plan)
    return density.double()


def build_member(
    layout: Layout, given: int, features: int, front: Mapping[str, Any], **inner: Any
) -> LazyDistribution:
    """Makes one member of the stack."""
    zeros, eye = torch.zeros(features), torch.eye(features)
    steps: list[LazyTransform] = []
    if front["knots"]:
        knots = torch.arange(front["knots"]).expand(features, -1).float()
        steps.append(NormalScores(knots, knots.clone(), torch.ones_like(knots)))
    if front["whiten"]:
        weight = torch.zeros(features, given) if given else None
        steps.append(Whiten(zeros, eye, weight))
    return assemble(layout, steps, **_inner(features, given, **inner))


def _inner(
    features: int,
    given: int,
    layers: str = "",
    hidden: int = 0,
    seed: int = 0,
    components: int = 0,
    slopes: bool = False,
) -> dict[str, Any]:
    base = None
    if components:
        loc = torch.zeros(components, features)
        eyes = torch.eye(features).expand(components, -1, -1).clone()
        zeros = torch.zeros(components, features, given) if slopes else None
        base = build_mixture(torch.zeros(components), loc, eyes, zeros)
    return {"layers": build_layers(features, given, layers, hidden, seed), "base": base}


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
    return Flow(LazyComposedTransform(*steps), base)
