"""Numbers that heap up at round ones, spread so that their density is smooth."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedflow.columns.rows import Layout
from maskedflow.transforms import DependentTransform, LazyTransform, UnivariateTransform

from .bounds import column_maps

NEVER = 2**61
"""A cell behind all others: it fills up the tables of columns that need less than others."""
FARTHEST = 2.0**45
"""How many cells from 0 they are still counted."""


class HeapsTransform(UnivariateTransform):
    """The map of :class:`Heaps`, element by element."""

    def __init__(self, heaps: Heaps) -> None:
        super().__init__()
        self.heaps = heaps
        self.step, self.low, self.high = (t.double() for t in (heaps.step, heaps.lows, heaps.highs))
        self.widths = heaps.widths.double()
        self.ends = torch.cat([self.widths.new_zeros(1), self.widths.cumsum(dim=0)])
        # Of popular cells: what is added to their width, and where they begin, in all.
        begin, width = (t.T for t in self._spread(heaps.popular.T))
        self.wide = width * heaps.factors.double()
        self.extra = self.wide - width
        self.shifts = torch.cat([self.extra[:, :1] * 0, self.extra.cumsum(dim=1)], dim=1)
        self.begin = begin + self.shifts[:, :-1]
        below, above = self.low.isfinite(), self.high.isfinite()
        # Bounds stay where they are; what is too far away for cells to be counted moves as a whole.
        low = torch.where(below, self.low, -FARTHEST * self.step)
        high = torch.where(above, self.high, FARTHEST * self.step)
        self.fixed = torch.where(below, low, torch.where(above, high, 0)) / self.step
        begin, fixed, end = (
            self._stretch(*self._cells(x))[0] for x in (low, self.fixed * self.step, high)
        )
        self.place = fixed
        self.scale = torch.where(below & above, (high - low) / self.step / (end - begin), 1)
        self.domain_ends = low, high
        self.codomain_ends = (
            torch.where(below, low, self.step * (self.fixed + begin - fixed)),
            torch.where(above, high, self.step * (self.fixed + end - fixed)),
        )

    def __repr__(self) -> str:
        return f"HeapsTransform(columns={self.heaps.columns.tolist()})"

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        given = x[..., self.heaps.columns].double()
        inside = given.clamp(*self.domain_ends)
        place, width = self._stretch(*self._cells(inside))
        y = self.step * (self.fixed + self.scale * (place - self.place))
        y = y.clamp(*self.codomain_ends) + (given - inside)
        return self._placed(x, y, torch.where(given == inside, (self.scale * width).log(), 0))

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        given = y[..., self.heaps.columns].double()
        inside = given.clamp(*self.codomain_ends)
        place = self.place + (inside / self.step - self.fixed) / self.scale
        cell, within, width = self._shrink(place)
        count = cell - self.heaps.origins
        count = count - _count(self.heaps.left_out, count, right=False)
        x = self.step * (count + within)
        # What is rounded up to the next number would be in its cell.
        x = x.minimum((self.step * (count + 1)).nextafter(-torch.ones_like(x) / 0))
        x = x.clamp(*self.domain_ends) + (given - inside)
        return self._placed(y, x, torch.where(given == inside, -(self.scale * width).log(), 0))

    def _placed(self, whole: Tensor, part: Tensor, ladj: Tensor) -> tuple[Tensor, Tensor]:
        """All columns, with what these were mapped to, and the ladj of each."""
        index = self.heaps.columns
        return (
            whole.index_copy(-1, index, part.to(whole.dtype)),
            torch.zeros_like(whole).index_copy(-1, index, ladj.to(whole.dtype)),
        )

    def _cells(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The cell of each number, counted from the number 0, and the place in it."""
        place = x / self.step
        near = place.detach().round()
        exact = (place - near).abs() <= 2.0**-50 * near.abs()
        count = torch.where(exact, near, place.detach().floor())
        within = (place - count).clamp(min=0)
        before = self.heaps.left_out - torch.arange(self.heaps.left_out.shape[1]).to(count.device)
        count = count.long()
        return count + _count(before, count, right=True) + self.heaps.origins, within

    def _spread(self, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Where a cell begins, and its width, if none is popular."""
        heaps = self.heaps
        band = _count(heaps.edges, cell, right=True)
        start = _at(heaps.starts, band)
        place = torch.remainder(cell - _at(heaps.bases, band), _at(heaps.periods, band))
        begin = (cell - place) + (self.ends[start + place] - self.ends[start])
        return begin, self.widths[start + place]

    def _stretch(self, cell: Tensor, within: Tensor) -> tuple[Tensor, Tensor]:
        """Where a place in a cell goes, and the width of the cell there."""
        begin, width = self._spread(cell)
        before = _count(self.heaps.popular, cell, right=False)
        popular = _at(self.heaps.popular, before) == cell
        width = torch.where(popular, _at(self.wide, before), width)
        return begin + _at(self.shifts, before) + within * width, width

    def _shrink(self, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inverse: the cell, the place in it, and its width."""
        heaps, known = self.heaps, place.detach()
        after = _count(self.begin, known, right=True)
        last = (after - 1).clamp(min=0)
        wide, begin = _at(self.wide, last), _at(self.begin, last)
        popular = (after > 0) & (known < begin + wide)
        even = place - _at(self.shifts, after)
        band = _count(heaps.edges.double(), even.detach(), right=True)
        start, base, period = (_at(t, band) for t in (heaps.starts, heaps.bases, heaps.periods))
        whole = base + ((even.detach() - base) / period).floor().long() * period
        rest, first = even - whole, self.ends[start]
        target = (first + rest).detach().contiguous()
        index = torch.searchsorted(self.ends, target, right=True) - 1
        index = index.minimum(start + period - 1).maximum(start)
        cell = torch.where(popular, _at(heaps.popular, last), whole + index - start)
        width = torch.where(popular, wide, self.widths[index])
        begin = torch.where(popular, begin, whole + self.ends[index] - first)
        return cell, ((torch.where(popular, place, even) - begin) / width).clamp(0, 1), width


def _count(bounds: Tensor, value: Tensor, right: bool) -> Tensor:
    """How many of a column's ascending bounds, (H, K), are below each value, (*, H)."""
    rows = value.reshape(-1, len(bounds)).T.contiguous()
    found = torch.searchsorted(bounds.contiguous(), rows, right=right)
    return found.T.reshape(value.shape)


def _at(table: Tensor, index: Tensor) -> Tensor:
    """The entries of each column's table, (H, K), at an index, (*, H)."""
    first = torch.arange(len(table), device=table.device) * table.shape[1]
    return table.reshape(-1)[index + first]


class Heaps(LazyTransform):
    r"""Stretches the cells of numbers that rows heap up at, and shrinks those of others.

    Of rows rounded to 10 or to 50, some cells have hundreds of times as many rows as those beside.
    The map is increasing and linear in each cell [x, x + s) of the grid, with a slope in proportion
    to how much likelier x is than numbers near it on average: afterwards rows are spread evenly,
    and a density of them can be smooth.

    The slopes repeat with a period in each of some bands, as those of the last digits of a number
    do, and are 1 on average; those of single popular numbers are multiplied by a factor. Atoms,
    whose rows are no values, take up no room. Bounds stay where they are. Slopes are positive: a
    number that no row was at keeps a density.

    Args:
        columns: Which of a row's features have heaps, H of them, int64.
        step: The width s of their cells, with shape (H,).
        lows: The lower bounds, -inf where there are none, alike.
        highs: The upper bounds alike.
        origins: How many steps above the number 0 the value 0 is, int64, alike.
        left_out: The cells of atoms, counted from the value 0 as if none were left out, int64,
            with shape (H, A), ascending; :data:`NEVER` where a column has fewer.
        edges: Where bands end, in steps above the number 0, int64, with shape (H, B), alike.
        bases: A cell in, or at the end of, each band, where a period begins, int64, (H, B + 1).
        periods: The cells of a period, int64, alike.
        starts: Where in `widths` the band's are, int64, alike.
        widths: The slopes in the cells of a period, one period after the other.
        popular: The cells of popular numbers, and of atoms, in steps above the number 0, int64,
            with shape (H, J), ascending, at least one :data:`NEVER` at the end.
        factors: What the slopes there are multiplied by, 0 for an atom, with shape (H, J).

    Example:
        >>> heaps = Heaps.empty(columns=1, left_out=0, bands=1, widths=2, popular=1)
        >>> heaps.periods.fill_(2)
        tensor([[2]])
        >>> heaps.widths = torch.tensor([1.5, 0.5])  # even numbers are three times as likely
        >>> heaps()(torch.tensor([[2.0], [2.5], [3.0], [4.0]])).flatten()
        tensor([2.0000, 2.7500, 3.5000, 4.0000])
    """

    is_fixed = True

    columns: Tensor
    step: Tensor
    lows: Tensor
    highs: Tensor
    origins: Tensor
    left_out: Tensor
    edges: Tensor
    bases: Tensor
    periods: Tensor
    starts: Tensor
    widths: Tensor
    popular: Tensor
    factors: Tensor

    def __init__(self, **tables: Tensor) -> None:
        super().__init__()
        for name in Heaps.__annotations__:
            self.register_buffer(name, tables[name])

    def extra_repr(self) -> str:
        return f"columns={self.columns.tolist()}"

    @classmethod
    def empty(cls, columns: int, left_out: int, bands: int, widths: int, popular: int) -> Heaps:
        """Heaps of these sizes that are to be loaded."""
        number, whole = torch.ones(columns).double(), torch.zeros(columns).long()
        return cls(
            columns=torch.arange(columns),
            step=number,
            lows=-number / 0,
            highs=number / 0,
            origins=whole,
            left_out=whole[:, None].expand(-1, left_out) + NEVER,
            edges=whole[:, None].expand(-1, bands - 1) + NEVER,
            bases=whole[:, None].expand(-1, bands).clone(),
            periods=whole[:, None].expand(-1, bands) + 1,
            starts=whole[:, None].expand(-1, bands).clone(),
            widths=torch.ones(widths).double(),
            popular=whole[:, None].expand(-1, popular) + NEVER,
            factors=number[:, None].expand(-1, popular).clone(),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """What :meth:`empty` takes."""
        return {
            "columns": len(self.columns),
            "left_out": self.left_out.shape[1],
            "bands": self.bases.shape[1],
            "widths": len(self.widths),
            "popular": self.popular.shape[1],
        }

    def forward(self, c: Tensor | None = None) -> DependentTransform:
        return DependentTransform(HeapsTransform(self), 1)


def first_steps(layout: Layout, heaps: Heaps | None) -> list[LazyTransform]:
    """The maps of value columns to the real line: of heaps, if there are any, then of bounds."""
    return [*([] if heaps is None else [heaps]), column_maps(layout)]
