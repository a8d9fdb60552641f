"""Discrete values as a transform: noise in their cells one way, the cell's value the other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions.transforms import Transform as TorchTransform

from .base import (
    ComposedTransform,
    DependentTransform,
    IdentityTransform,
    Transform,
    VectorTransform,
)
from .lazy import LazyTransform
from .noisy import Noisy

PLACES = 8
"""The places within a cell where the density of a discrete value is taken."""


class _DequantizeTransform(VectorTransform):
    bijective = False

    def __init__(self, cells: Dequantize) -> None:
        super().__init__()
        self.cells = cells
        self.step = cells.step
        self.generator = cells.generator

    def __repr__(self) -> str:
        return "Dequantize()"

    def _call(self, x: Tensor) -> Tensor:
        self.cells.before = self.generator.get_state()
        return self.at(x, self.cells.uniform(x.shape, x.dtype))

    def at(self, x: Tensor, place: Tensor) -> Tensor:
        """Some place of each cell, between 0 and 1 of its width."""
        step = self.step.to(x)
        y, end = x + step * place.to(x), x + step
        # In float32 a sum may round up to the next value, which has a cell of its own.
        return torch.where(step > 0, y.minimum(torch.nextafter(end, x)), y)

    def _inverse(self, y: Tensor) -> Tensor:
        step = self.step.to(y)
        if self.cells.low is None:
            grid = torch.floor(y / step.clamp(min=torch.finfo(y.dtype).tiny)) * step
        else:
            grid = self.cells.nearest(y).to(y)
        return torch.where(step > 0, grid, y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


class Dequantize(Noisy, LazyTransform):
    r"""Spreads each discrete value evenly over its cell: :math:`y = x + s u`, u uniform on [0, 1).

    The density of y integrates over a cell of volume :math:`\prod_i s_i` to the probability of x,
    so its logarithm, in expectation over u, is at most :math:`\log P(x) - \sum_i \log s_i`. The
    inverse is the lower corner of the cell that y lies in. The noise is its own generator's:
    :meth:`seed` starts it anew, for fresh noise each epoch and the same noise each evaluation.

    Where the range of the values is given, that of the inverse is no wider, and in evaluation mode
    a flow that begins with this transform has

    .. math:: \frac{P(x)}{\prod_i s_i} \approx \frac{1}{M} \sum_{m=1}^M p(x + s u_m)

    for its density, with M = 8 places in the cell, the same for every row: the midpoints of
    eighths in each dimension, in an order of its own. It depends on no noise and on no other row.

    Args:
        step: The width :math:`s` of the cells, a number or one a feature; 0 for a continuous one.
        low: The least value of each feature, with shape (D,); any for a continuous one.
        high: The greatest, alike.

    Raises:
        ValueError: If a width is negative, or of the range one end is missing.

    References:
        | A note on the evaluation of generative models (Theis et al., 2016), section 3.1
        | https://arxiv.org/abs/1511.01844

    Example:
        >>> dequantize = Dequantize()
        >>> y = dequantize()(torch.tensor([3.0, 7.0]))
        >>> dequantize().inv(y)
        tensor([3., 7.])
        >>> quarters = Dequantize(0.25, low=torch.zeros(1), high=torch.ones(1))
        >>> quarters().inv(torch.tensor([[-0.3], [0.6], [1.7]])).flatten()
        tensor([0.0000, 0.5000, 1.0000])
    """

    step: Tensor
    low: Tensor | None
    high: Tensor | None

    def __init__(
        self,
        step: float | Tensor = 1.0,
        low: Tensor | None = None,
        high: Tensor | None = None,
    ) -> None:
        super().__init__()
        step = torch.as_tensor(step, dtype=torch.float64)
        if (step < 0).any():
            raise ValueError("step: expected widths >= 0")
        if (low is None) != (high is None):
            raise ValueError("low, high: expected both ends of the range, or none")
        self.register_buffer("step", step)
        self.register_buffer("low", None if low is None else low.double())
        self.register_buffer("high", None if high is None else high.double())

    def seed(self, seed: int) -> None:
        """Starts the noise anew from a seed."""
        super().seed(seed)
        self.before = self.generator.get_state()

    def rewind(self) -> None:
        """Lets the next noise be the last one again."""
        self.generator.set_state(self.before)

    def forward(self, c: Tensor | None = None) -> Transform:
        return _DequantizeTransform(self)

    @property
    def places(self) -> Tensor | None:
        """Where in a cell a density is evaluated, with shape (M, D); None: wherever noise falls."""
        if self.low is None or self.training:
            return None
        return places_in_a_cell(len(self.low)).to(self.low)

    def nearest(self, y: Tensor) -> Tensor:
        """The value whose cell y lies in, or the end of the range that is nearest, in float64."""
        assert self.low is not None
        assert self.high is not None
        # Dividing by 10 gives the number that is nearest to a decimal, multiplying by 0.1 does not.
        density = 1 / torch.where(self.step > 0, self.step, 1).to(self.low)
        low, high = self.low * density, self.high * density
        whole = low.round()
        low = torch.where((low - whole).abs() < 1e-6, whole, low)
        cell = torch.floor(y * density - low).clamp(min=0).minimum((high - low).round())
        return (low + cell) / density

    def holds(self, x: Tensor) -> Tensor:
        """Whether each row, with shape (*, D), is a row of such values; all are if none are known.

        Example:
            >>> cents = Dequantize(0.01, low=torch.zeros(1), high=torch.ones(1))
            >>> cents.holds(torch.tensor([[0.29], [0.295], [7.0]]))
            tensor([ True, False,  True])
        """
        if self.low is None:
            return torch.ones(x.shape[:-1], dtype=torch.bool)
        step = torch.where(self.step > 0, self.step, 1)
        cell = (x.double() - self.low) / step
        rounded = torch.finfo(x.dtype).eps * x.double().abs() / step
        off = (cell - cell.round()).abs() > 0.01 + rounded
        return ~((self.step > 0) & off).any(dim=-1)


def places_in_a_cell(features: int) -> Tensor:
    """Places in a unit cell, with shape (8, D): a Latin hypercube of midpoints of eighths."""
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(PLACES, generator=generator) for _ in range(features)]
    return (torch.stack(orders, dim=1).double() + 0.5) / PLACES


def spread(transform: TorchTransform, x: Tensor) -> tuple[TorchTransform, list[Tensor]]:
    """The points whose mean density is that of x, and the transform that they go through.

    Args:
        transform: The transform of a flow.
        x: Rows, with shape (*, D).

    Returns:
        The transform and x alone, unless it begins with a :class:`Dequantize` that knows its
        range, in evaluation mode: then what comes after it, and places of the cells of x.
    """
    first, rest = _first(transform)
    if not isinstance(first, _DequantizeTransform) or first.cells.places is None:
        return transform, [x]
    after = ComposedTransform(*rest) if rest else DependentTransform(IdentityTransform(), 1)
    return after, [first.at(x, place) for place in first.cells.places]


def _first(transform: TorchTransform) -> tuple[TorchTransform, list[TorchTransform]]:
    """The first transform of all, which may be within compositions, and those after it."""
    if not isinstance(transform, ComposedTransform):
        return transform, []
    first, rest = _first(transform.transforms[0])
    return first, [*rest, *transform.transforms[1:]]
