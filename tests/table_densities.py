"""Densities of mixed tables, far from their start, and rows for them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.tables import (
    AutoregressiveCategorical,
    Layout,
    PartialFlow,
    Rows,
    TableDensity,
    Whiten,
    column_maps,
    present_columns,
)
from maskedflow.transforms import LazyTransform, Permutation
from strategies import overwrite

#: A category, and the states of an angle and of a number, which may be missing, or one atom.
#: Numbers: one with a state, a whole number of 0..9, a positive one. Angles: with a state, without.
MIXED = Layout(
    levels=(2, 2, 3),
    value_state=(2, None, None),
    angle_state=(1, None),
    steps=(0.0, 1.0, 0.0),
    lows=(None, 0.0, 0.0),
    highs=(None, 10.0, None),
    log_units=0.25,
    code_units=((0.0, 0.0), (0.5, 0.0), (0.0, 0.0, 0.0)),
)


def build(layout: Layout = MIXED, context: int = 0, noise: float = 0.2) -> TableDensity:
    """A density far from its start."""
    generator = torch.Generator().manual_seed(0)
    codes, turns, features = sum(layout.levels), len(layout.angle_state), len(layout.value_state)
    there = present_columns(layout)
    categories = angles = numbers = None
    net = {"hidden_features": (16,), "generator": generator}
    if layout.levels:
        categories = AutoregressiveCategorical(layout.levels, context, **net)
    if turns:
        circles = mf.flows.NCSF(turns, codes + context, bins=4, transforms=1, **net)
        angles = PartialFlow(circles.transform, circles.base, there[0])
    if features:
        given = codes + 2 * turns + context
        maf = mf.flows.MAF(features, given, transforms=2, activation=nn.Tanh, **net)
        factor = torch.eye(features) + 0.3 * torch.ones(features, features).tril(-1)
        weight = 0.2 * torch.randn(features, given, generator=generator)
        layers: list[LazyTransform] = [
            column_maps(layout),
            Whiten(torch.zeros(features), factor, weight if given else None),
            maf.transform,
            Permutation(features, generator=generator),
        ]
        numbers = PartialFlow(layers, maf.base, there[1])
    made: TableDensity = overwrite(
        TableDensity(layout, categories, angles, numbers).double().eval(), noise
    )
    return made


def rows_of(
    layout: Layout,
    codes: Tensor | None = None,
    values: Tensor | None = None,
    angles: Tensor | None = None,
) -> Rows:
    """Rows of a layout, with zeros where the states say that nothing is."""
    n = max(len(part) for part in (codes, values, angles) if part is not None)
    codes = torch.zeros(n, 0, dtype=torch.long) if codes is None else codes
    none = torch.zeros(n, 0, dtype=torch.float64)
    parts = []
    for numbers, states in ((values, layout.value_state), (angles, layout.angle_state)):
        given = none if numbers is None else numbers
        seen = [torch.ones(n).bool() if s is None else codes[:, s] == 0 for s in states]
        observed = torch.stack(seen, dim=1) if seen else none.bool()
        parts += [torch.where(observed, given, 0), observed]
    return Rows(codes, *parts, torch.zeros(n, dtype=torch.bool))


def some_rows(n: int, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.stack([torch.randint(k, (n,), generator=generator) for k in MIXED.levels], dim=1)
    normal = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    share = torch.rand(n, 3, dtype=torch.float64, generator=generator)
    whole = (10 * share[:, 1]).floor()
    values = torch.stack([normal[:, 0], whole, normal[:, 2].exp()], dim=1)
    return rows_of(MIXED, codes, values, math.pi * (2 * share[:, [0, 2]] - 1))
