"""The density of a table's rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import accumulate
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from maskedflow.columns.rows import Layout, Rows
from maskedflow.flows import LazyDistribution
from maskedflow.flows.flow import BLOCK, in_blocks
from maskedflow.training.batches import weight_of
from maskedflow.transforms import Dequantize, places_in_a_cell
from maskedflow.transforms.whiten import aligned

from .categories import AutoregressiveCategorical, one_hot
from .fronted import FrontedFlow
from .heaps import Heaps

DRAWN = 2**14
"""The rows that are drawn at a time."""


class Head(NamedTuple):
    """The leading factors of a density: so many codes; angles; and values."""

    codes: int
    angles: bool = True
    values: bool = True


def present_columns(layout: Layout) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Which dimension of the context says that an angle, or a value, is observed.

    The context begins with the codes as one-hot vectors, so it is the one of the state's level 0;
    None if it always is observed.

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
    ones = one_hot(rows.codes, layout.levels, torch.float64)
    if c is None:
        return ones if layout.levels else None
    return torch.cat([ones, c.double()], dim=-1)


def number_context(layout: Layout, rows: Rows, c: Tensor | None) -> Tensor | None:
    """What values are given: one-hot vectors, sines and cosines (0 if absent), and c."""
    if layout.angle_state:
        observed = rows.angles_observed
        turn = [torch.where(observed, f(rows.angles), 0) for f in (torch.sin, torch.cos)]
        c = torch.cat(turn if c is None else [*turn, c.double()], dim=-1)
    return angle_context(layout, rows, c)


def _cast(given: Tensor | None, like: Tensor) -> Tensor | None:
    return None if given is None else aligned(given.to(like))


class TableDensity(nn.Module):
    r"""The density of a table's rows, with categories, angles and numbers, some of them absent.

    .. math:: p(\text{row} \mid c) = P(\text{codes} \mid c) \;
        p(\text{angles} \mid \text{codes}, c) \;
        p(\text{numbers} \mid \text{codes}, \text{angles}, c)

    The first factor is a probability, the others are densities of the observed angles and numbers,
    per unit of their columns. A discretised number counts with the mass of its cell divided
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
        corner = torch.zeros(1, len(layout.steps), dtype=torch.float64)
        places = places_in_a_cell(len(layout.steps)) if any(layout.steps) else corner
        self.register_buffer("places", places)

    @property
    def heaps(self) -> Heaps | None:
        """The map of the numbers that rows heap up at, which comes first; None if there is none."""
        if not isinstance(self.numbers, FrontedFlow):
            return None
        return cast(Heaps, self.numbers.front.transforms[0])

    @property
    def weights(self) -> Tensor | None:
        """The weights of the members of a stack of densities of numbers; None if there is none."""
        stack = getattr(self.numbers, "base", self.numbers)  # behind a map of heaps
        return cast(Tensor | None, getattr(stack, "weights", None))

    def angle_context(self, rows: Rows, c: Tensor | None = None) -> Tensor | None:
        """What the angles are given, with shape (n, context); None if that is nothing."""
        return _cast(angle_context(self.layout, rows, c), weight_of(self))

    def number_context(self, rows: Rows, c: Tensor | None = None) -> Tensor | None:
        """What the numbers are given, with shape (n, context); None if that is nothing."""
        return _cast(number_context(self.layout, rows, c), weight_of(self))

    def log_prob(self, rows: Rows, c: Tensor | None = None) -> Tensor:
        r"""The log-density of each row, in nats and in the units of the columns.

        In evaluation mode it is the same number whatever other rows there are. For all of float64's
        precision the module has to be in float64, too.

        Args:
            rows: The n rows.
            c: Their contexts, with shape (n, context), or none.

        Returns:
            The log-densities, float64, with shape (n,); :math:`-\infty` where a row is impossible.
        """
        if self.training:
            return self._log_prob(rows, c)
        blocks = torch.arange(len(rows)).split(BLOCK)
        return torch.cat([self._log_prob(rows[i], None if c is None else c[i]) for i in blocks])

    def _log_prob(self, rows: Rows, c: Tensor | None) -> Tensor:
        possible = ~rows.impossible
        # Nothing has to be known of a row that is impossible.
        rows = Rows(*(_where(possible, getattr(rows, field.name)) for field in fields(Rows)))
        if self.training:
            values = cast(Tensor, self.dequantize()(rows.values))
            rows, offsets = replace(rows, values=values), self.places.new_zeros(1, 1)
        else:
            offsets = self.offsets
        total = self.layout.units(rows.codes) + self.log_head(rows, c, offsets)
        return torch.where(possible, total, -math.inf)

    @property
    def offsets(self) -> Tensor:
        """The places in the cells of values, as what is added to their low ends, (M, D)."""
        return self.places.double() * self.dequantize.step.double()

    def log_head(
        self, rows: Rows, c: Tensor | None, offsets: Tensor, head: Head | None = None
    ) -> Tensor:
        r"""The log-density of the leading factors, of angles in radians, all rows at once.

        What comes first in the order is a marginal of the density: the codes, the first of them
        alone, or codes and angles. All rows are possible; the density of values is its mean over
        offsets, (M, D), that are added to them.
        """
        head = head or Head(len(self.layout.levels))
        dtype = weight_of(self).dtype
        c = _cast(c, weight_of(self))
        total = rows.values.new_zeros(len(rows), dtype=torch.float64)
        if self.categories is not None and head.codes:
            terms = in_blocks(self.categories, lambda made, x: made.log_probs(x), rows.codes, c)
            total = total + terms[:, : head.codes].sum(dim=-1)
        if head.angles and self.angles is not None:
            given, angles = self.angle_context(rows, c), rows.angles.to(dtype)
            total = total + in_blocks(self.angles, lambda made, x: made.log_prob(x), angles, given)
        if head.values and self.numbers is not None:
            given, values = self.number_context(rows, c), rows.values.to(dtype)
            places = values + offsets.to(dtype)[:, None]
            total = total + _log_mean(self.numbers.log_probs_at(places, given)).double()
        return total

    @torch.no_grad()
    def sample(
        self, n: int, c: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Rows:
        """Draws n rows, given a context each, (n, context), or of all, (context,).

        What is absent is 0, and discretised numbers are at the low ends of their cells.
        """
        if n < 0:
            raise ValueError(f"n: expected at least 0, got {n}")
        c = None if c is None else c.expand(n, -1)
        return self.complete(self.build_rows(n), Head(0, False, False), c, generator)

    @torch.no_grad()
    def complete(
        self,
        rows: Rows,
        head: Head,
        c: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Rows:
        """Draws what comes behind the leading factors, given what these are of.

        Values are drawn if any are, and so are angles if codes are drawn before them.
        """
        drawn = [
            self._complete(rows[part], head, None if c is None else c[part], generator)
            for part in torch.arange(len(rows)).split(DRAWN)
        ]
        return concatenated(drawn)

    def _complete(
        self, rows: Rows, head: Head, c: Tensor | None, generator: torch.Generator | None
    ) -> Rows:
        like, n = weight_of(self), len(rows)
        c = None if c is None else c.to(like)
        if self.categories is not None and head.codes < len(self.layout.levels):
            made = self.categories(c)
            first = rows.codes[:, : head.codes]
            rows = self.build_rows(n, made.sample_after(first, generator))
        if self.angles is not None and not head.angles:
            given = self.angle_context(rows, c)
            drawn = self.angles(given).sample((n,) if given is None else (), generator=generator)
            angles = torch.remainder(drawn.double() + math.pi, 2 * math.pi) - math.pi
            rows = replace(rows, angles=torch.where(rows.angles_observed, angles, 0))
        if self.numbers is not None and not head.values:
            given = self.number_context(rows, c)
            drawn = self.numbers(given).sample((n,) if given is None else (), generator=generator)
            values = self._on_grid(drawn.double())
            rows = replace(rows, values=torch.where(rows.observed, values, 0))
        return rows

    def build_rows(self, n: int, codes: Tensor | None = None) -> Rows:
        """Rows of which only the codes are known, or are 0; they say what is observed."""
        layout, device = self.layout, self.places.device
        if codes is None:
            codes = torch.zeros(n, len(layout.levels), dtype=torch.long, device=device)

        def observed(states: tuple[int | None, ...]) -> Tensor:
            always = torch.ones(n, len(states), dtype=torch.bool, device=device)
            for column, state in enumerate(states):
                if state is not None:
                    always[:, column] = codes[:, state] == 0
            return always

        values, angles = observed(layout.value_state), observed(layout.angle_state)
        return Rows(
            codes=codes,
            values=torch.zeros_like(values, dtype=torch.float64),
            observed=values,
            angles=torch.zeros_like(angles, dtype=torch.float64),
            angles_observed=angles,
            impossible=torch.zeros(n, dtype=torch.bool, device=device),
        )

    def _on_grid(self, values: Tensor) -> Tensor:
        """The low ends of the cells that numbers lie in, of those within the bounds."""
        grid = cast(Tensor, self.dequantize().inv(values))
        layout = self.layout
        cells = list(zip(layout.lows, layout.highs, layout.steps, strict=True))
        low = [-math.inf if low is None or not step else low for low, _, step in cells]
        high = [math.inf if high is None or not step else high - step for _, high, step in cells]
        return grid.clamp(grid.new_tensor(low), grid.new_tensor(high))


def concatenated(parts: Sequence[Rows]) -> Rows:
    """Rows one after another."""
    return Rows(
        *(torch.cat([getattr(rows, field.name) for rows in parts]) for field in fields(Rows))
    )


def by_blocks(
    function: Callable[[Rows, Tensor | None], Tensor], rows: Rows, c: Tensor | None
) -> Tensor:
    """What a function makes of rows; the last block goes on with the first rows anew."""
    found = []
    for start in range(0, len(rows), BLOCK):
        index = torch.arange(start, start + BLOCK) % len(rows)
        made = function(rows[index], None if c is None else c[index])
        found.append(made[: len(rows) - start])
    return torch.cat(found)


def _log_mean(log_probs: Tensor) -> Tensor:
    """The logarithm of the mean of densities, (M, n), one after the other.

    The order of a reduction would depend on how many rows there are.
    """
    if len(log_probs) == 1:
        return log_probs[0]
    largest = log_probs.detach().amax(dim=0).clamp(min=torch.finfo(log_probs.dtype).min)
    total = torch.zeros_like(largest)
    for one in log_probs:
        total = total + (one - largest).exp()
    return total.log() + (largest - math.log(len(log_probs)))


def _where(keep: Tensor, part: Tensor) -> Tensor:
    return torch.where(keep.view(-1, *[1] * (part.ndim - 1)), part, torch.zeros_like(part))
