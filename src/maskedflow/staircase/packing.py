"""The packed masked matrix: rows in slabs, each slab only as wide as its mask.

Units are sorted by degree, so the mask of each layer is a staircase. Cut into slabs of rows, each
slab reading only the columns from its first to its last non-zero, about half of the matrix is left:
half of the parameters to store and update, half of the arithmetic.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: Most slabs of a matrix, and the fewest features in one.
MOST_SLABS, SMALLEST_SLAB = 8, 8


def slab_size(features: int, generations: int) -> int:
    """The number of generations in a slab.

    Example:
        >>> slab_size(784, 784), slab_size(784, 2), slab_size(6, 6)
        (98, 1, 6)
    """
    slabs = max(1, min(MOST_SLABS, generations, features // SMALLEST_SLAB))
    return -(-generations // slabs)


def slab_of(degree: Tensor, size: int) -> Tensor:
    """The slab that each generation (or degree) belongs to; degree 0, context only, is slab 0.

    Example:
        >>> slab_of(torch.tensor([0, 1, 16, 17, 33]), size=16)
        tensor([0, 1, 1, 2, 3])
    """
    return (degree + size - 1) // size


class Slab(NamedTuple):
    """Rows `top` to `bottom` of the matrix, columns `left` to `right`, from `offset` when packed.

    Columns `ragged` (a pair) are those where `mask`, of shape (rows, ragged columns), has zeros.
    """

    top: int
    bottom: int
    left: int
    right: int
    offset: int
    ragged: tuple[int, int]
    mask: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""
        return self.bottom - self.top, self.right - self.left

    def place(self, row: Any, column: Any) -> Any:
        """Where a weight is in the packed vector."""
        return self.offset + (row - self.top) * (self.right - self.left) + column - self.left


class Staircase:
    """How a masked matrix is packed into a vector, given the slab of each row.

    Example:
        >>> stairs = Staircase(torch.ones(4, 4).tril().bool(), torch.tensor([0, 0, 1, 1]))
        >>> [slab.shape for slab in stairs.slabs], stairs.size
        ([(2, 2), (2, 4)], 12)
        >>> stairs.unpack(stairs.pack(torch.ones(4, 4))).int()
        tensor([[1, 0, 0, 0],
                [1, 1, 0, 0],
                [1, 1, 1, 0],
                [1, 1, 1, 1]], dtype=torch.int32)
    """

    def __init__(self, mask: Tensor, slab: Tensor) -> None:
        mask = mask.cpu()
        self.mask: np.ndarray[Any, np.dtype[np.bool_]] = mask.numpy()
        self.rows, self.columns = mask.shape
        self.row_starts, self.row_ends = _hulls(self.mask)
        self.column_starts, self.column_ends = _hulls(self.mask.T)
        #: Whether no row has a zero between two others.
        self.is_filled = self.mask.sum() == sum(
            max(end - start, 0) for start, end in zip(self.row_starts, self.row_ends, strict=True)
        )
        self.slabs: list[Slab] = []
        self.size = 0
        edges = [0, *((slab[1:] != slab[:-1]).nonzero().flatten() + 1).tolist(), self.rows]
        for top, bottom in pairwise(edges):
            rows = mask[top:bottom]
            used = rows.any(dim=0).nonzero().flatten()
            left, right = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
            holes = (~rows[:, left:right]).any(dim=0).nonzero().flatten()
            ragged = (int(holes[0]), int(holes[-1]) + 1) if len(holes) else (0, 0)
            hull = rows[:, left + ragged[0] : left + ragged[1]].clone()
            self.slabs.append(Slab(top, bottom, left, right, self.size, ragged, hull))
            self.size += (bottom - top) * (right - left)
        self._is_single = len(self.slabs) == 1 and self.size > 0
        self._cache: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Staircase:
        copy = object.__new__(Staircase)
        copy.__dict__.update(self.__getstate__())
        return copy

    def unpack(self, packed: Tensor) -> Tensor:
        """The dense matrix, with zeros outside of the mask. Differentiable."""
        return torch.cat(
            [
                F.pad(view * self._full_mask(slab).to(view), (slab.left, self.columns - slab.right))
                for slab, view in zip(self.slabs, self._views(packed), strict=True)
            ]
        )

    def pack(self, dense: Tensor) -> Tensor:
        """The packed vector of a dense matrix, with zeros outside of the mask. Differentiable."""
        hulls = (dense[slab.top : slab.bottom, slab.left : slab.right] for slab in self.slabs)
        return torch.cat(
            [
                (hull * self._full_mask(slab).to(hull)).reshape(-1)
                for slab, hull in zip(self.slabs, hulls, strict=True)
            ]
        )

    def packed_mask(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which numbers of the packed vector the mask allows."""
        parts = [
            self.mask[slab.top : slab.bottom, slab.left : slab.right].ravel() for slab in self.slabs
        ]
        return np.concatenate([np.empty(0, np.bool_), *parts])

    def weights(self, packed: Tensor) -> list[Tensor]:
        """The slabs of a parameter, as matrices that share its memory and have no graph.

        They have exact zeros outside of the mask, whoever wrote there: an initialiser, noise.
        """
        packed = packed.data  # no version bump: where this writes, no gradient is ever read
        key = packed.data_ptr(), packed.dtype, packed.device
        if self._cache.get("weights", (None,))[0] != key:
            slabs = self._views(packed)
            self._cache["weights"] = key, slabs, self._ragged(slabs)
        _, slabs, ragged = self._cache["weights"]
        self._clear(ragged)
        return slabs  # type: ignore[no-any-return]

    def product(self, x: Tensor, packed: Tensor, bias: Tensor) -> Tensor:
        """The masked product x W^T + b of rows x, without a graph."""
        weights = self.weights(packed)
        if self._is_single:
            return torch.addmm(bias, x[:, self.slabs[0].left : self.slabs[0].right], weights[0].t())
        y = x.new_empty(x.shape[0], self.rows)
        y.copy_(bias)
        for slab, weight in zip(self.slabs, weights, strict=True):
            if slab.left < slab.right:
                columns = x[:, slab.left : slab.right]
                y[:, slab.top : slab.bottom].addmm_(columns, weight.t())
        return y

    def input_gradient(self, dy: Tensor, packed: Tensor) -> Tensor:
        """The product dy W, without a graph. The weight is as `product` left it."""
        slabs = self._views(packed.detach())
        if self._is_single and self.slabs[0].shape[1] == self.columns:
            return dy @ slabs[0]
        dx = dy.new_zeros(dy.shape[0], self.columns)
        for slab, weight in zip(self.slabs, slabs, strict=True):
            if slab.left < slab.right:
                dx[:, slab.left : slab.right].addmm_(dy[:, slab.top : slab.bottom], weight)
        return dx

    def weight_gradient(self, dy: Tensor, x: Tensor) -> Tensor:
        """The packed product dy^T x, zero outside of the mask, without a graph."""
        gradient = x.new_empty(self.size)
        slabs = self._views(gradient)
        for slab, out in zip(self.slabs, slabs, strict=True):
            if slab.left < slab.right:
                torch.mm(dy[:, slab.top : slab.bottom].t(), x[:, slab.left : slab.right], out=out)
        self._clear(self._ragged(slabs))
        return gradient

    def _views(self, packed: Tensor) -> list[Tensor]:
        return [
            packed.narrow(0, slab.offset, slab.shape[0] * slab.shape[1]).view(slab.shape)
            for slab in self.slabs
        ]

    def _ragged(self, slabs: list[Tensor]) -> list[Tensor]:
        return [
            view[:, slab.ragged[0] : slab.ragged[1]]
            for slab, view in zip(self.slabs, slabs, strict=True)
            if slab.ragged[1]
        ]

    def _clear(self, ragged: list[Tensor]) -> None:
        if not ragged:
            return
        key = ragged[0].dtype, ragged[0].device
        if key not in self._cache:
            self._cache[key] = [slab.mask.to(ragged[0]) for slab in self.slabs if slab.ragged[1]]
        torch._foreach_mul_(ragged, self._cache[key])

    def _full_mask(self, slab: Slab) -> Tensor:
        mask = torch.ones(slab.shape, dtype=torch.bool)
        mask[:, slab.ragged[0] : slab.ragged[1]] = slab.mask
        return mask


def _hulls(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[list[int], list[int]]:
    """The first non-zero of each row and the end of its last; an empty row begins at its end."""
    width = mask.shape[1]
    if not width:
        return [0] * len(mask), [0] * len(mask)
    used = mask.any(axis=1)
    starts = np.where(used, mask.argmax(axis=1), width)
    ends = np.where(used, width - mask[:, ::-1].argmax(axis=1), 0)
    return starts.tolist(), ends.tolist()
