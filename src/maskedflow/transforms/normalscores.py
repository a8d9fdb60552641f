"""Margins made normal, from the quantiles of data."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from .base import DependentTransform, UnivariateTransform
from .spline import evaluate_bin, solve_bin
from .waiting import Block, WaitingTransform, gathered

_MOST_KNOTS = 32
_MOST_WAITING = 128
"""A run has rows enough to find the edges of columns that were rounded and made continuous."""

_MOST_NUMBERS = 2**24
"""The numbers of the rows whose quantiles are taken, at most."""

_ROWS_A_KNOT = 25
"""Fewer rows would make a knot's slope a matter of chance."""

_TAIL = 2.0
"""How many standard deviations a tail goes on before it is half as steep."""

_FARTHEST = 4.5
"""The score of the very last knots, up to which tails are exponential: few samples are beyond."""


class TailedSplineTransform(UnivariateTransform):
    r"""A monotone rational-quadratic spline through given knots, with logarithmic tails.

    Between two knots it is that of neural spline flows; beyond the last one, :math:`x_K`,

    .. math:: f(x) = y_K + t \log\left(1 + \frac{d_K (x - x_K)}{t}\right),

    and alike below the first, so that what lies a thousand standard deviations out is still a few
    from the middle. Both directions cost a binary search.

    Args:
        x: The knots, ascending, with shape (D, K).
        y: Their values, ascending, with shape (D, K).
        slopes: The slopes :math:`d` there, positive, with shape (D, K).
        tail: The length :math:`t` of the tails.

    References:
        Neural Spline Flows (Durkan et al., 2019), section 3.1, https://arxiv.org/abs/1906.04032

    Example:
        >>> knots = torch.tensor([[-1.0, 0.0, 1.0]])
        >>> f = TailedSplineTransform(knots, 2 * knots, torch.full((1, 3), 2.0))
        >>> f(torch.tensor([[0.5], [1e6]]))
        tensor([[ 1.0000],
                [29.6310]])
    """

    def __init__(self, x: Tensor, y: Tensor, slopes: Tensor, tail: float = _TAIL) -> None:
        super().__init__()
        self.x, self.y, self.slopes, self.tail = x, y, slopes, tail

    def __repr__(self) -> str:
        return f"TailedSplineTransform(features={len(self.x)}, knots={self.x.shape[1]})"

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x0, y0, width, height, d0, d1 = self._bin(self.x, x)
        xi = ((x - x0) / width).clamp(0, 1)
        y, ladj = evaluate_bin(xi, 1 - xi, height / width, d0, d1)
        y = y0 + height * y
        for end, side in ((0, -1), (-1, 1)):
            at, value, slope = self.x[:, end], self.y[:, end], self.slopes[:, end]
            beyond = side * (x - at)
            far = (slope * beyond.clamp(min=0) / self.tail).log1p()
            y = torch.where(beyond > 0, value + side * self.tail * far, y)
            ladj = torch.where(beyond > 0, slope.log() - far, ladj)
        return y, ladj

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x0, y0, width, height, d0, d1 = self._bin(self.y, y)
        share = ((y - y0) / height).clamp(0, 1)
        xi, rest = solve_bin(share, height / width, d0, d1)
        x, ladj = x0 + xi * width, -evaluate_bin(xi, rest, height / width, d0, d1)[1]
        for end, side in ((0, -1), (-1, 1)):
            at, value, slope = self.x[:, end], self.y[:, end], self.slopes[:, end]
            far = side * (y - value) / self.tail
            # A latent far out, which no sample is, must not end at infinity.
            far_x = at + side * self.tail / slope * torch.expm1(far.clamp(0, 60))
            x, ladj = torch.where(far > 0, far_x, x), torch.where(far > 0, far - slope.log(), ladj)
        return x, ladj

    def _bin(self, knots: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """For each value x0, y0, width, height, d0, d1 of its bin, the nearest one outside."""
        rows = value.detach().reshape(-1, len(knots)).T.contiguous()
        index = torch.searchsorted(knots.contiguous(), rows, right=True) - 1
        index = index.clamp(0, knots.shape[1] - 2)

        def at(values: Tensor) -> Tensor:
            return values.gather(1, index).T.reshape(value.shape)

        pairs = self.x.diff(dim=1), self.y.diff(dim=1), self.slopes[:, :-1], self.slopes[:, 1:]
        return (at(self.x), at(self.y), *(at(values) for values in pairs))


class NormalScores(WaitingTransform):
    r"""Brings each feature's margin near to N(0, 1): :math:`y = \Phi^{-1}(\hat F(x))`, smoothed.

    A spline through quantiles of the data, see :class:`TailedSplineTransform` for its parameters.
    It takes the skew, the lumps and the heavy tails of single columns out of the way, so that a
    flow is left with how they depend on each other. With :meth:`waiting` the data are the training
    rows of :func:`maskedflow.training.fit`.

    Raises:
        ValueError: If the shapes differ, or a knot, value or slope is out of order.

    Example:
        >>> x = torch.rand(10_000, 1, generator=torch.Generator().manual_seed(0)).exp()
        >>> y = NormalScores.fit(x)()(x)
        >>> bool(y.mean().abs() < 0.02), bool((y.std() - 1).abs() < 0.02)
        (True, True)
    """

    positive = ("slopes",)
    x: Tensor
    y: Tensor
    slopes: Tensor

    is_fixed = is_rowwise = True

    def __init__(self, x: Tensor, y: Tensor, slopes: Tensor) -> None:
        super().__init__()
        if x.ndim != 2 or not x.shape == y.shape == slopes.shape or x.shape[1] < 2:
            raise ValueError(
                "x, y, slopes: expected one shape (D, K) with K >= 2, got "
                f"{tuple(x.shape)}, {tuple(y.shape)} and {tuple(slopes.shape)}"
            )
        if not ((x.diff(dim=1) > 0).all() and (y.diff(dim=1) > 0).all() and (slopes > 0).all()):
            raise ValueError("x, y, slopes: expected ascending knots and values, positive slopes")
        self.register_buffer("x", x)
        self.register_buffer("y", y)
        self.register_buffer("slopes", slopes)

    def extra_repr(self) -> str:
        return f"features={len(self.x)}, knots={self.x.shape[1]}"

    @classmethod
    def waiting(cls, features: int) -> NormalScores:
        """About the identity, until :func:`maskedflow.training.fit` sets it by its training rows.

        Whether that has happened is part of its state. It has 128 knots, more than :meth:`fit`.

        Args:
            features: The number of features.

        Example:
            >>> import maskedflow as mf
            >>> x = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)).exp()
            >>> flow = mf.flows.Flow(NormalScores.waiting(2), mf.flows.MAF(2))
            >>> mf.training.start_at(flow, mf.data.Split(x))
            >>> flow.transform.is_waiting
            False
        """
        scores = torch.linspace(-_FARTHEST, _FARTHEST, _MOST_WAITING + 2).repeat(features, 1)
        made = cls(scores, scores.clone(), torch.ones_like(scores))
        made.initialized = torch.tensor(False)
        return made

    @property
    def enough(self) -> int:
        """How many rows it wants."""
        return _MOST_NUMBERS // len(self.x)

    @torch.no_grad()
    def start(self, blocks: Iterable[Block]) -> None:
        """Sets it to what :meth:`fit` finds, by 128 knots where there are rows enough."""
        x, weight = gathered(blocks)
        found = self.fit(x.double(), weight=weight, knots=_MOST_WAITING)
        if found.x.shape != self.x.shape:  # the number of knots stays: take more of the same spline
            y = torch.linspace(-_FARTHEST, _FARTHEST, self.x.shape[1], dtype=torch.float64)
            y = y.to(x.device).repeat(len(self.x), 1)
            places, ladj = found().base.inverse_and_ladj(y.T)
            found = NormalScores(places.T, y, (-ladj.T).exp())
        for name in ("x", "y", "slopes"):
            getattr(self, name).copy_(getattr(found, name))
        if self.initialized is not None:
            self.initialized.fill_(True)

    @classmethod
    def fit(
        cls,
        x: Tensor,
        observed: Tensor | None = None,
        weight: Tensor | None = None,
        knots: int = _MOST_KNOTS,
    ) -> NormalScores:
        """Takes the knots from the quantiles of each column, in float64.

        The last of these leave a thousandth of the rows outside, ten rows at least. There one more
        knot follows, where an exponential tail as long as that of these rows has a score of 4.5.

        Args:
            x: The rows, with shape (n, D).
            observed: Whether each number is there, with shape (n, D); all if None.
            weight: How much each row counts, with shape (n,); all alike if None.
            knots: The most knots among the quantiles; 25 rows have one.
        """
        there = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
        share = x.new_ones(len(x)) if weight is None else weight
        there = there & (share > 0)[:, None]
        mass = share.double()[:, None] * there
        rows = mass.sum(dim=0).square() / mass.square().sum(dim=0).clamp(min=1e-300)
        count = min(knots, max(2, round(float(rows.min())) // _ROWS_A_KNOT))
        columns = [
            _knots(column[here], part[here], count)
            for column, here, part in zip(
                x.double().unbind(1), there.unbind(1), mass.unbind(1), strict=True
            )
        ]
        places, scores = (torch.stack(values) for values in zip(*columns, strict=True))
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return cls(places.to(dtype), scores.to(dtype), _slopes(places, scores).to(dtype))

    def forward(self, c: Tensor | None = None) -> DependentTransform:
        return DependentTransform(TailedSplineTransform(self.x, self.y, self.slopes), 1)


def _knots(values: Tensor, weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Knots at quantiles with evenly spaced normal scores, pulled apart where values repeat."""
    values, order = values.sort()
    weight = weight[order]
    if len(values) < 2 or values[0] == values[-1]:
        around = torch.linspace(-1, 1, count + 2, dtype=torch.float64, device=values.device)
        return (values[0] if len(values) else 0) + around, around
    n = float(weight.sum().square() / weight.square().sum())
    outside = min(max(10 / n, 1e-3), 0.25)
    end = torch.special.ndtri(torch.tensor(1 - outside, dtype=torch.float64))
    scores = torch.linspace(-1, 1, count, dtype=torch.float64, device=values.device) * end
    place = (weight.cumsum(0) - weight / 2) - weight[0] / 2
    place = place / place[-1]
    wanted = torch.special.ndtr(scores)
    low = (torch.searchsorted(place, wanted, right=True) - 1).clamp(0, len(values) - 2)
    between = (wanted - place[low]) / (place[low + 1] - place[low])
    found = torch.lerp(values[low], values[low + 1], between)
    # Repeated values would make a slope infinite: their bin is thinner than any other, not empty.
    steps = found.diff()
    gaps = steps[steps > 0]
    thinnest = gaps.min() / 10 if len(gaps) else (values[-1] - values[0]) / count
    knots = torch.cat([found[:1], found[0] + steps.clamp(min=thinnest).cumsum(0)])
    # Tails are exponential as far as the last knots, and as long as those of the rows out there.
    far = scores.new_full((1,), _FARTHEST)
    times = math.log(outside) - torch.special.log_ndtr(-far)
    share = weight / weight.cumsum(0)[-1] / outside
    # A cumulative sum is the same number with any number of threads.
    least, most = (
        times * (share * beyond.clamp(min=0)).cumsum(0)[-1].clamp(min=thinnest)
        for beyond in (found[0] - values, values - found[-1])
    )
    knots = torch.cat([knots[:1] - least, knots, knots[-1:] + most])
    return knots, torch.cat([-far, scores, far])


def _slopes(x: Tensor, y: Tensor) -> Tensor:
    """Slopes at knots: harmonic means of the neighbouring secants, which keep wiggles out."""
    width, secant = x.diff(dim=1), y.diff(dim=1) / x.diff(dim=1)
    left, right = 2 * width[:, 1:] + width[:, :-1], width[:, 1:] + 2 * width[:, :-1]
    middle = (left + right) / (left / secant[:, :-1] + right / secant[:, 1:])
    return torch.cat([secant[:, :1], middle, secant[:, -1:]], dim=1)
