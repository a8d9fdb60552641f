"""PIT residuals: what a density makes of rows, uniform if it is right."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import Distribution

from maskedflow.columns.rows import Rows
from maskedflow.columns.schema import Schema
from maskedflow.flows.flow import BLOCK
from maskedflow.flows.stack import Stack
from maskedflow.transforms import PermutationTransform

from .circular import AutoregressiveVonMisesDistribution
from .density import TableDensity, by_blocks
from .fronted import FrontedDistribution, FrontedFlow
from .missing import PartialDistribution, call_observed, elements_of, steps_of

PLACES = 32
"""The places of a cell of which one is drawn."""


@torch.no_grad()
def pit(
    schema: Schema, density: TableDensity, rows: Rows, c: Tensor | None, generator: torch.Generator
) -> Tensor:
    r"""Computes PIT residuals: independent and uniform on (0, 1) if rows come from the density.

    A code k, whose probability given those before it is P, gets a random place in its piece of the
    unit interval, and a latent z of numbers the probability of less,

    .. math:: u_k = F(k - 1) + v P(k), \qquad u_i = \Phi(z_i) .

    Of a stack of densities that is the latent of one member, drawn with the probability
    :math:`w_m p_m(x) / p(x)` that it made the row; of a mixture of Gaussians likewise that of one
    component, :math:`L_m^{-1} (x - \mu_m)`. A discretised number is taken at a place of its cell
    that is drawn in proportion to the density, of 32 places spread over the cell. A column whose
    numbers may be absent has one residual for state and number together: where a number is there,
    its :math:`u_i` is the :math:`v` of the state. Residuals of a row are independent since each
    draw is given all that went before.

    A row costs one density, and 32 of them if a column is discretised.

    Returns:
        The residuals, with shape (n, columns), NaN of constants, duplicates and impossible rows.

    References:
        | Remarks on a Multivariate Transformation (Rosenblatt, 1952)
        | Predictive Model Assessment for Count Data (Czado et al., 2009), section 2, for codes
    """
    if not len(rows):
        return torch.zeros(0, len(schema.columns), dtype=torch.float64)
    found = by_blocks(partial(_block, schema, density, generator), rows, c)
    return torch.where(rows.impossible[:, None], math.nan, found)


def _block(
    schema: Schema, density: TableDensity, generator: torch.Generator, rows: Rows, c: Tensor | None
) -> Tensor:
    def uniform(*shape: int) -> Tensor:
        # Of a whole block, so that later rows do not change what earlier ones get.
        return torch.rand(BLOCK, *shape, dtype=torch.float64, generator=generator)

    layout = density.layout
    within = uniform(len(layout.levels))
    low, mass = torch.zeros_like(within), torch.ones_like(within)
    if density.categories is not None:
        low, mass = _pieces(density.categories(c).logits(rows.codes), rows.codes)
    turns, values = uniform(0), uniform(0)
    if density.angles is not None:
        given = density.angle_context(rows, c)
        turns = _of_stack(density.angles, rows.angles[:, None], given, uniform().repeat(2, 1).T)
    if density.numbers is not None:
        spread = torch.tensor(layout.steps, dtype=torch.float64)
        shape = (PLACES if any(layout.steps) else 1, len(spread))
        orders = uniform(*shape).argsort(dim=1)
        places = (orders + uniform(*shape)) / shape[0] * spread
        given, numbers = density.number_context(rows, c), density.numbers
        points = rows.values[:, None] + places
        if isinstance(numbers, FrontedFlow):  # a map that is linear in each cell
            points = numbers.front(given)(points)
            numbers = numbers.base
        values = _of_stack(numbers, points, given, uniform(2))
    columns = (*schema.angular, *schema.valued)
    made = {column.name: u for column, u in zip(columns, (*turns.T, *values.T), strict=True)}
    for k, column in enumerate(schema.coded):
        v = within[:, k]
        if column.name in made:
            v = torch.where(rows.codes[:, k] == 0, made[column.name], v)
        made[column.name] = low[:, k] + mass[:, k] * v
    none = torch.full((BLOCK,), math.nan, dtype=torch.float64)
    return torch.stack([made.get(column.name, none) for column in schema.columns], dim=1)


def _pieces(logits: list[Tensor], codes: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of a lower level, and of its own, for each code."""
    shares = [part.double().softmax(dim=-1) for part in logits]
    pairs = list(zip(shares, codes.T[..., None], strict=True))
    mass = torch.cat([share.gather(1, code) for share, code in pairs], dim=1)
    up_to = torch.cat([share.cumsum(dim=1).gather(1, code) for share, code in pairs], dim=1)
    return up_to - mass, mass


def _of_stack(stack: Any, points: Tensor, c: Tensor | None, u: Tensor) -> Tensor:
    """The residuals of numbers or angles, of one member at one of some points, (n, M, D)."""
    one = not isinstance(stack, Stack)
    members, log_weights = ([stack], [0]) if one else (stack.members, stack.weights.double().log())
    found, log_probs = [], []
    for member, log_weight in zip(members, log_weights, strict=True):
        made = member(c)
        for x in points.unbind(dim=1):
            residual, log_prob = _latent(made, x, u[:, 0])
            found.append(residual)
            log_probs.append(log_prob + log_weight)
    chosen = _choose(torch.stack(log_probs, dim=1), u[:, 1])
    return torch.stack(found, dim=1)[torch.arange(len(chosen)), chosen]


def _latent(made: Distribution, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """For each feature the probability of a lower latent, and the log-density of the row."""
    if isinstance(made, AutoregressiveVonMisesDistribution):
        return made.cdf(x), made.log_prob(x)
    flow = cast(Any, made)  # a NormalizingFlow has both of these, too
    transform, base = flow.transform, flow.base
    observed = torch.ones_like(x, dtype=torch.bool)
    if isinstance(made, PartialDistribution | FrontedDistribution) and made.observed is not None:
        observed = made.observed.expand(x.shape)
    z, ladj, observed = call_observed(transform, torch.where(observed, x, 0), observed)
    if hasattr(base, "residuals"):
        residual, log_prob = base.residuals(z, u), base.log_prob(z)
    else:
        elements = elements_of(base)
        if elements is None or not hasattr(elements, "cdf"):
            raise ValueError(f"base: expected elements with a cdf, got {base}")
        residual = elements.cdf(z)
        log_prob = torch.where(observed, elements.log_prob(z), 0).sum(dim=-1)
    order = torch.arange(x.shape[-1])
    for step in steps_of(transform):
        if isinstance(step, PermutationTransform):
            order = order[step.order]
    return residual[:, order.argsort()], log_prob + ladj


def _choose(log_weights: Tensor, u: Tensor) -> Tensor:
    """Draws one of some, (n, K), for each uniform number, (n,)."""
    up_to = log_weights.softmax(dim=-1).cumsum(dim=-1)
    return (up_to < u[:, None]).sum(dim=-1).clamp(max=log_weights.shape[-1] - 1)
