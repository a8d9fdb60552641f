"""Marginals and conditionals: the density of some columns, given others or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from maskedflow.flows import Flow

from .grid import POINTS, Grid
from .named import HeldOut, NamedDensity
from .order import Order
from .refit import DRAWS, fit_draws, support_of


def marginal(
    density: Any, columns: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> NamedDensity:
    r"""The density of some columns, whatever the others are.

    .. math:: p(x_S) = \int p(x) \, dx_{\bar S}

    It is exact where the density knows it: of a Gaussian, a mixture of Gaussians, or independent
    columns any of them, of a masked autoregressive flow those that come first in the order of all
    its transforms (one transform, or several with the same `order`), and of such a flow with a
    base that is one of these; maps of each column by itself, such as bounds and scales, may come
    before. Draws are then those of the density, and a log-density costs one of it.

    Otherwise a flow of splines is fitted to draws, which takes seconds; where the density is zero
    beyond a bound, so is the flow's. `exact` says which of the two it is, and `held_out` how the
    fit does on draws that it has not seen.

    Args:
        density: What :meth:`NamedDensity.of` takes.
        columns: Their names, in the order that is wanted.
        draws: The number of draws to fit to; three tenths of them are held out.
        seed: Seed of draws and fit.

    Raises:
        ValueError: If there is no such column, or one is named twice.

    Example:
        >>> from maskedflow.flows import MADE
        >>> density = NamedDensity.of(MADE(3), ["a", "b", "c"])
        >>> some = marginal(density, ["b", "a"])
        >>> some.columns, some.exact, some.sample(5).shape
        (('b', 'a'), True, torch.Size([5, 2]))
    """
    whole = NamedDensity.of(density)
    index = whole.index(columns)
    if not len(index):
        raise ValueError("columns: expected at least one, got none")
    names = tuple(whole.columns[i] for i in index)
    if len(index) == whole.features:
        return whole.ordered(names)
    order = Order.of(whole)
    if order is None or not order.leads(index):
        x = whole.sample(draws, seed)
        flow, held_out = fit_draws(x[:, index], support=support_of(whole, x, index), seed=seed)
        return replace(NamedDensity.of(flow, names), held_out=held_out)

    def score(x: Tensor) -> Tensor:
        return torch.cat(
            [
                order.log_marginal(_filled(order.example, index, part), index)
                for part in x.split(1000)
            ]
        )

    return NamedDensity(names, lambda n, seed: whole.draw(n, seed)[:, index], score)


def conditional(density: Any, given: Mapping[str, float], *, seed: int = 0) -> NamedDensity:
    r"""The density of the other columns given the values of some.

    .. math:: p(x_{\bar S} \mid x_S) = \frac{p(x)}{p(x_S)}

    The same as `Conditional.of(density, given).at(given)`, which see for how it is found and for
    many values of the same columns.

    Args:
        density: What :meth:`NamedDensity.of` takes.
        given: The values, by the names of their columns.
        seed: Seed of draws and of a fit, if there is one.

    Raises:
        ValueError: If there is no such column, none is left, a value is no finite number, or the
            density is zero there.

    Example:
        >>> from maskedflow.flows import MADE
        >>> density = NamedDensity.of(MADE(3), ["a", "b", "c"])
        >>> rest = conditional(density, {"a": 0.5})
        >>> rest.columns, rest.exact, rest.sample(5).shape
        (('b', 'c'), True, torch.Size([5, 2]))
    """
    return Conditional.of(density, tuple(given), seed=seed).at(given)


@dataclass(frozen=True, eq=False)
class Conditional:
    r"""The density of columns given others, for any values of these.

    - Where those that are given come first in the order (see :func:`marginal`), it is exact: their
      latents stay as they are, the others' are drawn.
    - Else, of one or two free columns, it is :math:`p(x)` normalised on a grid, with an error from
      cells of a width of 1/2048 or 1/256 of the density's range. Narrow modes far apart may
      be missed.
    - Else a flow given columns is fitted to draws of all, once for all values: `held_out` says how
      it does, on average over draws. Where these are rare it has learnt little.

    Attributes:
        columns: The columns that are left.
        given: Those that are given.
        held_out: How the fit does; None if there was none.
    """

    columns: tuple[str, ...]
    given: tuple[str, ...]
    held_out: HeldOut | None
    _at: Callable[[Tensor], NamedDensity] = field(repr=False)

    @classmethod
    def of(
        cls, density: Any, given: Sequence[str], *, draws: int = DRAWS, seed: int = 0
    ) -> Conditional:
        """Finds out how the density is conditioned on some columns, and fits a flow if need be.

        Args:
            density: What :meth:`NamedDensity.of` takes.
            given: The names of the columns that are given.
            draws: The number of draws to fit to; three tenths of them are held out.
            seed: Seed of draws and fit.
        """
        density = NamedDensity.of(density)
        index = density.index(given, "given")
        rest = torch.tensor([i for i in range(density.features) if i not in index.tolist()])
        if not len(index) or not len(rest):
            raise ValueError(
                f"given: expected some of {', '.join(density.columns)}, not all, "
                f"got {', '.join(given) or 'none'}"
            )
        names = tuple(density.columns[i] for i in rest)
        held_out, order = None, Order.of(density)
        at: Callable[[Tensor], NamedDensity]
        if order is not None and order.leads(index):
            at = _Ordered(density, order, names, index, rest)
        elif len(rest) in POINTS:
            at = _Gridded(density, names, index, rest, density.sample(1000, seed)[:, rest])
        else:
            x = density.sample(draws, seed)
            support = support_of(density, x, rest)
            flow, held_out = fit_draws(x[:, rest], x[:, index], support=support, seed=seed)
            at = _Fitted(flow, names, held_out)
        return cls(names, tuple(density.columns[i] for i in index), held_out, at)

    def at(self, given: Mapping[str, float]) -> NamedDensity:
        """The density given these values.

        Raises:
            ValueError: If the names are others, or a value is no finite number.
        """
        if set(given) != set(self.given):
            raise ValueError(
                f"given: expected {', '.join(self.given)}, got {', '.join(given) or 'none'}"
            )
        values = [_number(name, given[name]) for name in self.given]
        return self._at(torch.tensor(values, dtype=torch.float64))


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"given: expected a finite number for {name!r}, got {value}")
    return number


@dataclass(frozen=True, eq=False)
class _Ordered:
    """Columns given those that come first."""

    density: NamedDensity
    order: Order
    names: tuple[str, ...]
    index: Tensor
    rest: Tensor

    def __call__(self, value: Tensor) -> NamedDensity:
        row = _filled(self.order.example, self.index, value[None])
        log_given = self.order.log_marginal(row, self.index)
        if log_given.item() == -torch.inf:
            raise ValueError("given: the density is zero there")

        def draw(n: int, seed: int) -> Tensor:
            return self.order.complete(row, self.index, n, seed)[:, self.rest]

        def score(x: Tensor) -> Tensor:
            return self.density.score(_filled(row, self.rest, x)) - log_given

        return NamedDensity(self.names, draw, score)


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Columns given others, by a flow with a context."""

    flow: Flow
    names: tuple[str, ...]
    held_out: HeldOut

    def __call__(self, value: Tensor) -> NamedDensity:
        found = NamedDensity.of(self.flow, self.names, value)
        return replace(found, held_out=self.held_out)


@dataclass(frozen=True, eq=False)
class _Gridded:
    """One or two columns given all others."""

    density: NamedDensity
    names: tuple[str, ...]
    index: Tensor
    rest: Tensor
    draws: Tensor

    def __call__(self, value: Tensor) -> NamedDensity:
        row = torch.zeros(1, self.density.features, dtype=torch.float64)
        row[:, self.index] = value
        ranges = torch.stack([self.draws.amin(dim=0), self.draws.amax(dim=0)], dim=1)

        def joint(x: Tensor) -> Tensor:
            return self.density.score(_filled(row, self.rest, x))

        with torch.no_grad():
            grid = Grid.around(joint, ranges)

        def draw(n: int, seed: int) -> Tensor:
            return grid.sample(n, seed).to(self.draws)

        return NamedDensity(self.names, draw, lambda x: joint(x) - grid.log_z)


def _filled(row: Tensor, index: Tensor, x: Tensor) -> Tensor:
    """Copies of a row, some columns of which are those of x."""
    rows = row.to(torch.promote_types(row.dtype, x.dtype)).repeat(len(x), 1)
    return rows.index_copy(1, index, x.to(rows))
