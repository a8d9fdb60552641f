"""The density of a table's rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskedflow.columns.rows import Layout, Rows
from maskedflow.flows import LazyDistribution
from maskedflow.training.batches import weight_of
from maskedflow.transforms import Dequantize, places_in_a_cell
from maskedflow.transforms.whiten import aligned

from .categories import AutoregressiveCategorical, one_hot

__all__ = ["TableDensity", "blocks", "present_columns"]

#: The rows of a block. The last is filled up, so that a row's density has no other rows in it.
BLOCK = 256
#: The rows that are drawn at a time.
DRAWN = 2**14


def present_columns(layout: Layout) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Which dimension of the context tells that an angle, or a number, is there.

    The context begins with the codes as one-hot vectors, so it is the one of the state's level 0.

    Args:
        layout: What the columns are.

    Returns:
        For each angle, and for each value column, the dimension; None if it always is there.

    Example:
        >>> present_columns(Layout((3, 2), (None, 1), (0,), (0.0, 0.0), (None,) * 2, (None,) * 2))
        ((0,), (None, 3))
    """
    starts = [0, *accumulate(layout.levels)]

    def columns(states: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(None if state is None else starts[state] for state in states)

    return columns(layout.angle_state), columns(layout.value_state)


def angle_context(layout: Layout, rows: Rows, c: Tensor | None) -> Tensor | None:
    """What angles are given: the codes as one-hot vectors, and c; None if that is nothing."""
    parts = [one_hot(rows.codes, layout.levels, torch.float64)] if layout.levels else []
    parts += [] if c is None else [c.double()]
    return torch.cat(parts, dim=-1) if parts else None


def number_context(layout: Layout, rows: Rows, c: Tensor | None) -> Tensor | None:
    """What numbers are given: one-hot vectors, sines and cosines (0 if absent), and c."""
    if layout.angle_state:
        there = rows.angles_observed
        turn = [torch.where(there, f(rows.angles), 0) for f in (torch.sin, torch.cos)]
        c = torch.cat(turn if c is None else [*turn, c.double()], dim=-1)
    return angle_context(layout, rows, c)


def _cast(given: Tensor | None, like: Tensor) -> Tensor | None:
    return None if given is None else aligned(given.to(like))


class TableDensity(nn.Module):
    r"""The density of a table's rows, with categories, angles and numbers, some of them absent.

    .. math:: p(\text{row} \mid c) = P(\text{codes} \mid c) \;
        p(\text{angles} \mid \text{codes}, c) \;
        p(\text{numbers} \mid \text{codes}, \text{angles}, c)

    The first factor is a probability, the others are densities of those angles and numbers that are
    there, per unit of their columns. A discretised number counts with the mass of its cell divided
    by the cell's width,

    .. math:: \frac{P(x)}{s} = \frac{1}{s} \int_0^s p(x + t) \, dt
        \approx \frac{1}{M} \sum_{m=1}^M p(x + s u_m) ,

    with M = 8 places in the cell, the same for every row: the midpoints of eighths in each
    dimension, in an order of its own. In training mode it is one place, drawn anew each time.

    Args:
        layout: What the columns are.
        categories: The distribution of the codes given c; None if there are none.
        angles: The distribution of the angles, given the codes as one-hot vectors and c; None if
            there are none. A :class:`PartialFlow`, if one may be absent.
        numbers: The distribution of the numbers, given the codes as one-hot vectors, the sines and
            then the cosines of the angles (0 if absent), and c; None if there are none. A
            :class:`PartialFlow`, if one may be absent, whose first layer is :func:`column_maps`
            of the layout.

    Raises:
        ValueError: If a factor is missing or needless.

    Example:
        >>> from maskedflow.flows import MAF
        >>> layout = Layout((2,), (None,), (), (0.0,), (None,), (None,))
        >>> maf = MAF(1, context=2)
        >>> density = TableDensity(layout, AutoregressiveCategorical([2]), None, maf)
        >>> rows = density.sample(5)
        >>> density.log_prob(rows).shape
        torch.Size([5])
    """

    places: Tensor
    plan: dict[str, Any]

    def __init__(
        self,
        layout: Layout,
        categories: AutoregressiveCategorical | None,
        angles: LazyDistribution | None,
        numbers: LazyDistribution | None,
    ) -> None:
        super().__init__()
        for name, factor, columns in (
            ("categories", categories, layout.levels),
            ("angles", angles, layout.angle_state),
            ("numbers", numbers, layout.value_state),
        ):
            if (factor is None) != (not columns):
                found = "none" if factor is None else "one"
                raise ValueError(f"{name}: got {found}, but the layout has {len(columns)} columns")
        self.layout = layout
        self.plan = {}
        self.categories, self.angles, self.numbers = categories, angles, numbers
        self.dequantize = Dequantize(torch.tensor(layout.steps, dtype=torch.float64))
        self.register_buffer("places", _places(layout.steps))

    def angle_context(self, rows: Rows, c: Tensor | None = None) -> Tensor | None:
        """What the angles are given, with shape (n, context); None if that is nothing."""
        return _cast(angle_context(self.layout, rows, c), self._weight())

    def number_context(self, rows: Rows, c: Tensor | None = None) -> Tensor | None:
        """What the numbers are given, with shape (n, context); None if that is nothing."""
        return _cast(number_context(self.layout, rows, c), self._weight())

    def log_prob(self, rows: Rows, c: Tensor | None = None) -> Tensor:
        r"""The log-density of each row, in nats and in the units of the columns.

        In evaluation mode it is the same number whatever other rows there are. For all of float64's
        precision the module has to be in float64, too.

        Args:
            rows: The rows.
            c: Their contexts, with shape (n, context), or none.

        Returns:
            The log-densities, float64, with shape (n,); :math:`-\infty` where a row is impossible.
        """
        if self.training:
            return self._log_prob(rows, c)
        parts = [
            self._log_prob(rows[index], None if c is None else c[index])[:size]
            for index, size in blocks(len(rows.impossible))
        ]
        return torch.cat(parts) if parts else rows.values.new_zeros(0)

    def _log_prob(self, rows: Rows, c: Tensor | None) -> Tensor:
        possible = ~rows.impossible
        # Nothing has to be known of a row that is impossible.
        rows = Rows(*(_where(possible, getattr(rows, field.name)) for field in fields(Rows)))
        if self.training:
            values = cast(Tensor, self.dequantize()(rows.values))
            rows, places = replace(rows, values=values), self.places.new_zeros(1, 1)
        else:
            places = self.places.double() * self.dequantize.step.double()
        total = self.layout.units(rows.codes) + self.log_head(rows, c, places)
        return torch.where(possible, total, -math.inf)

    def log_head(
        self,
        rows: Rows,
        c: Tensor | None,
        places: Tensor,
        *,
        codes: int | None = None,
        angles: bool = True,
        numbers: bool = True,
    ) -> Tensor:
        r"""The log-density of the leading factors, of angles in radians, all rows at once.

        What comes first in the order is a marginal of the density: the codes, the first of them
        alone, or codes and angles.

        Args:
            rows: The rows, all of them possible.
            c: Their contexts, with shape (n, context), or none.
            places: What is added to the numbers: their density is its mean over these places, with
                shape (M, D).
            codes: How many codes count; all of them if None.
            angles: Whether the angles count.
            numbers: Whether the numbers count.
        """
        dtype = self._weight().dtype
        c = _cast(c, self._weight())
        total = rows.values.new_zeros(len(rows), dtype=torch.float64)
        if self.categories is not None and codes != 0:
            terms = self.categories(c).log_probs(rows.codes)
            total = total + terms[:, :codes].sum(dim=-1)
        if angles and self.angles is not None:
            made = self.angles(self.angle_context(rows, c))
            total = total + made.log_prob(rows.angles.to(dtype))
        if numbers and self.numbers is not None:
            made = self.numbers(self.number_context(rows, c))
            spread = [made.log_prob((rows.values + place).to(dtype)) for place in places]
            mean = torch.stack(spread).double().logsumexp(dim=0) - math.log(len(spread))
            total = total + mean
        return total

    @torch.no_grad()
    def sample(
        self, n: int, c: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Rows:
        """Draws rows.

        Args:
            n: How many.
            c: The context of each, with shape (n, context), or of all, with shape (context,).
            generator: Where draws come from; torch's own if None.

        Returns:
            The rows, with what is absent at 0 and discretised numbers at the low ends of their
            cells.
        """
        if n < 0:
            raise ValueError(f"n: expected at least 0, got {n}")
        c = None if c is None else c.expand(n, -1)
        drawn = [
            self._sample(len(part), None if c is None else c[part], generator)
            for part in torch.arange(n).split(DRAWN)
        ]
        parts = [[getattr(rows, field.name) for rows in drawn] for field in fields(Rows)]
        return Rows(*map(torch.cat, parts))

    def _sample(self, n: int, c: Tensor | None, generator: torch.Generator | None) -> Rows:
        like = self._weight()
        c = None if c is None else c.to(like)
        rows = self.build_rows(n)
        shape = (n,) if c is None else ()
        if self.categories is not None:
            codes = self.categories(c).sample(shape, generator=generator)
            rows = self.build_rows(n, codes=codes)
        if self.angles is not None:
            given = self.angle_context(rows, c)
            drawn = self.angles(given).sample((n,) if given is None else (), generator=generator)
            angles = torch.remainder(drawn.double() + math.pi, 2 * math.pi) - math.pi
            angles = torch.where(rows.angles_observed, angles, 0)
            rows = self.build_rows(n, codes=rows.codes, angles=angles)
        if self.numbers is not None:
            given = self.number_context(rows, c)
            drawn = self.numbers(given).sample((n,) if given is None else (), generator=generator)
            values = torch.where(rows.observed, self._on_grid(drawn.double()), 0)
            rows = self.build_rows(n, codes=rows.codes, angles=rows.angles, values=values)
        return rows

    def build_rows(self, n: int, **known: Tensor) -> Rows:
        """Rows of which only some parts are known yet; their codes tell what is observed.

        Args:
            n: How many.
            known: Their `codes`, `values` or `angles`; what is not given is 0.
        """
        like, layout = self.places, self.layout
        codes = known.get("codes", like.new_zeros(n, len(layout.levels), dtype=torch.long))

        def there(states: tuple[int | None, ...]) -> Tensor:
            always = torch.ones(n, len(states), dtype=torch.bool, device=like.device)
            for column, state in enumerate(states):
                if state is not None:
                    always[:, column] = codes[:, state] == 0
            return always

        zeros = like.new_zeros(n, len(layout.value_state), dtype=torch.float64)
        turns = like.new_zeros(n, len(layout.angle_state), dtype=torch.float64)
        return Rows(
            codes=codes,
            values=known.get("values", zeros),
            observed=there(layout.value_state),
            angles=known.get("angles", turns),
            angles_observed=there(layout.angle_state),
            impossible=torch.zeros(n, dtype=torch.bool, device=like.device),
        )

    def _on_grid(self, values: Tensor) -> Tensor:
        """The low ends of the cells that numbers lie in, of those within the bounds."""
        grid = cast(Tensor, self.dequantize().inv(values))
        layout = self.layout
        cells = list(zip(layout.lows, layout.highs, layout.steps, strict=True))
        low = [-math.inf if low is None or not step else low for low, _, step in cells]
        high = [math.inf if high is None or not step else high - step for _, high, step in cells]
        return grid.clamp(grid.new_tensor(low), grid.new_tensor(high))

    def _weight(self) -> Tensor:
        """A tensor that tells dtype and device."""
        return weight_of(self)


def _places(steps: tuple[float, ...]) -> Tensor:
    """Places in a unit cell, with shape (M, D): one place, its corner, if there are no cells."""
    if not any(steps):
        return torch.zeros(1, len(steps), dtype=torch.float64)
    return places_in_a_cell(len(steps))


def blocks(n: int) -> Iterator[tuple[Tensor, int]]:
    """The rows of each block, and how many count: the last one begins with the first rows anew.

    A row's density is the same number in each block then, whatever other rows there are.

    Args:
        n: How many rows there are.
    """
    for start in range(0, n, BLOCK):
        yield torch.arange(start, start + BLOCK) % n, min(BLOCK, n - start)


def _where(keep: Tensor, part: Tensor) -> Tensor:
    return torch.where(keep.view(-1, *[1] * (part.ndim - 1)), part, torch.zeros_like(part))
