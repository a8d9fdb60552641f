"""The plan of a sweep: which units, in which blocks, in which order. Pure data.

To invert z -> x, generation after generation, three steps are enough: finish the parameters of a
generation's features, which need hidden units of lower degree only; invert their maps; compute the
hidden units of that degree, layer by layer. Units are sorted by degree, so every step reads and
writes neighbouring rows, and each weight is used once. As in a blocked triangular solve,
generations go in blocks: one matrix product a layer brings in all earlier blocks, and only the
small diagonal pieces are left for the steps inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import cast

import numpy as np

from maskedflow.kernels import GROUP, Code, Kernel, Map, Panel
from maskedflow.nn import MaskedLinear, MaskedMLP
from maskedflow.staircase import Layout, Program, Writer

#: About as many features are in a block.
BLOCK_FEATURES = 16


class Plan:
    """The programs of a sweep through a masked MLP, there and back.

    The latents are in the rows that the layout's network reads, and the data take their place; the
    row `ladj` gets the inverse's. A feature that may be absent has a row of values in `present`
    that is 0 then: so are its parameters, and it stays at 0. About `block_features` features share
    a block, whose first and last generation are in `blocks`, and `group` rows of a product a range
    of columns.

    Example:
        >>> import torch
        >>> lower = torch.ones(2, 2).tril(-1).bool().repeat_interleave(2, dim=0)
        >>> net = MaskedMLP(lower, [4], generation=torch.tensor([1, 2]))
        >>> print(Plan(net, net.trunk.kept))
        0-1 inverted, given 6-8
        2-6 += vector 0 of 0-1
        2-6 = a(2-6)
        8-10 += vector 1 of 2-6
        1-2 inverted, given 8-10
    """

    def __init__(
        self,
        conditioner: MaskedMLP,
        layout: Layout,
        kernel: Kernel = (Map.AFFINE, ()),
        *,
        ladj: int | None = None,
        present: Sequence[int | None] | None = None,
        block_features: int = BLOCK_FEATURES,
        group: int = GROUP,
    ) -> None:
        layers = cast(list[MaskedLinear], list(conditioner.layers))
        self.layout, self.kernel, self._group = layout, kernel, group
        self.ladj = layout.end if ladj is None else ladj
        self.features = conditioner.in_features
        self.present = [None] * self.features if present is None else present
        self.parameters = conditioner.out_features // self.features
        generation = layers[-1].degrees[:: self.parameters]
        self.generations = int(generation.max())
        self._descending = bool(generation[0] > generation[-1])
        degree = np.arange(self.generations + 1)
        # Units of degree d are those from [d] to [d + 1]; in the order of the sweep, features of
        # generation g are those from [g - 1] to [g].
        self._unit_edges = [
            [*np.searchsorted(layer.degrees, degree).tolist(), layer.out_features]
            for layer in layers[:-1]
        ]
        ascending = np.sort(generation)
        self._feature_edges = np.searchsorted(ascending, degree, side="right").tolist()
        blocks = max(1, min(self.generations, self.features // block_features))
        size = -(-self.generations // blocks)
        self.blocks = [
            (first, min(first + size - 1, self.generations))
            for first in range(1, self.generations + 1, size)
        ]

    def __str__(self) -> str:
        return str(self.inverse)

    @cached_property
    def inverse(self) -> Program:
        """From the latents to the data, once the sums begin with their biases."""
        layout = self.layout
        writer = Writer(layout, self._group)
        outputs = len(layout.widths) - 1
        for layer in range(outputs):  # units that see the context only
            self._product(writer, layer, (0, 0), (0, 0))
            writer.activate(layer, *self._rows(layer, 0, 0))
        for first, last in self.blocks:
            self._product(writer, outputs, (first, last), (0, first - 1))
            for layer in range(outputs):
                self._product(writer, layer, (first, last), (0, first - 1))
            for now in range(first, last + 1):
                self._product(writer, outputs, (now, now), (first, now - 1))
                self._map(writer, Code.INVERT, Panel.VALUES, now)
                for layer in range(outputs):
                    self._product(writer, layer, (now, now), (first, now))
                    writer.activate(layer, *self._rows(layer, now, now))
        return writer.done()

    @cached_property
    def reverse(self) -> Program:
        """From the slopes by the data to those by the latents, by all sums and by parameters.

        It solves with the transposed Jacobian of the map from data to latents, which is triangular:
        a generation's slopes are complete when all later ones have passed theirs down.
        """
        layout = self.layout
        writer = Writer(layout, self._group)
        outputs = len(layout.widths) - 1
        writer.fill(Panel.SLOPES, layout.first, layout.sums[-1] - layout.first)
        for first, last in reversed(self.blocks):
            for now in range(last, first - 1, -1):
                for layer in reversed(range(outputs)):
                    self._transposed(writer, layer + 1, (now, last), (now, now))
                    writer.slope(layer, *self._rows(layer, now, now))
                self._transposed(writer, 0, (now, last), (now, now))
                self._map(writer, Code.SOLVE, Panel.SLOPES, now)
            for layer in range(outputs + 1):
                self._transposed(writer, layer, (first, last), (0, first - 1))
        for layer in reversed(range(outputs)):  # units that see the context only
            writer.slope(layer, *self._rows(layer, 0, 0))
            self._transposed(writer, layer, (0, 0), (0, 0))
        return writer.done()

    def _map(self, writer: Writer, code: Code, panel: Panel, now: int) -> None:
        start, end = self._features(now, now)
        first = self.layout.sums[-1] + start * self.parameters
        if code is Code.INVERT:
            writer.mask(Panel.VALUES, first, self.present[start:end], self.parameters)
        writer.map(
            code,
            panel,
            self.kernel,
            out=self.layout.inputs + start,
            rows=end - start,
            source=self.layout.inputs + start,
            columns=self.parameters,
            layer=first,
            offset=self.ladj,
        )
        if code is Code.SOLVE:
            writer.mask(Panel.SLOPES, first, self.present[start:end], self.parameters)

    def _features(self, first: int, last: int) -> tuple[int, int]:
        """The features of some generations."""
        start, end = self._feature_edges[max(first - 1, 0)], self._feature_edges[max(last, 0)]
        if self._descending:
            return self.features - end, self.features - start
        return start, end

    def _rows(self, layer: int, first: int, last: int) -> tuple[int, int]:
        """The rows of a layer of some degrees or, if it is the last, generations."""
        if layer == len(self._unit_edges):
            start, end = self._features(first, last)
            return start * self.parameters, end * self.parameters
        edges = self._unit_edges[layer]
        return edges[min(first, self.generations)], edges[min(last + 1, self.generations + 1)]

    def _columns(self, layer: int, first: int, last: int) -> tuple[int, int]:
        return self._features(first, last) if layer == 0 else self._rows(layer - 1, first, last)

    def _product(
        self, writer: Writer, layer: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> None:
        writer.product(layer, *self._rows(layer, *rows), *self._columns(layer, *columns))

    def _transposed(
        self, writer: Writer, layer: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> None:
        first, last = rows
        if layer == len(self._unit_edges) and first == columns[0]:
            first += 1  # a feature's parameters do not see its own generation
        writer.transposed(layer, *self._rows(layer, first, last), *self._columns(layer, *columns))
