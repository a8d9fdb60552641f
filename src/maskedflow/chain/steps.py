"""What the transforms of a chain write into its programs. Pure data."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor, nn

from maskedflow.kernels import Code, Kernel, Panel
from maskedflow.nn import MaskedLinear, MaskedMLP
from maskedflow.staircase import Layout, Operation, Program, Writer, joined
from maskedflow.sweep import Plan

#: Where a module keeps a tensor: it may be replaced, so it is looked up for each call.
Owner = tuple[dict[str, Any], str]


def owner(module: nn.Module, name: str) -> Owner:
    """Where a module keeps a parameter or a buffer."""
    held = module._parameters if name in module._parameters else module._buffers
    return held, name  # type: ignore[return-value]


@dataclass
class Rows:
    """Hands out the rows of a panel.

    Where a gradient follows, all are `kept`; otherwise some are handed out again.
    """

    kept: bool
    next: int = 0
    height: int = 0

    def take(self, count: int) -> int:
        """The first of so many rows."""
        first = self.next
        self.next += count
        self.height = max(self.height, self.next)
        return first

    def give_back(self, first: int) -> None:
        """Hands the rows from some row on out again, unless they are kept."""
        if not self.kept:
            self.next = first


class Place(NamedTuple):
    """Where a step finds what it works on.

    Its inputs, the context, the ladj and a row of ones are rows; its vectors are those of a job
    from `vector` on.
    """

    inputs: int
    context: int
    ladj: int
    ones: int
    vector: int


class Route(NamedTuple):
    """A step in one direction: the row of its outputs, and the programs there and back.

    The program `back` goes from slopes by the outputs to those by the inputs and the context, of
    which either may not be wanted; `gradients` are those of the vectors.
    """

    outputs: int
    there: Program
    back: dict[tuple[bool, bool], Program]
    gradients: Program


class Step(abc.ABC):
    """A transform that can be a part of a chain."""

    @property
    @abc.abstractmethod
    def owners(self) -> Sequence[Owner]:
        """Where its vectors are kept."""

    @property
    @abc.abstractmethod
    def features(self) -> int:
        """The size of its inputs and outputs."""

    @property
    def context(self) -> int:
        """The size of the context; 0 if it takes none."""
        return 0

    @property
    def is_costly(self) -> bool:
        """Whether it has a network, for which a chain is worth it."""
        return False

    @abc.abstractmethod
    def latents(self, rows: Rows, place: Place) -> Route:
        """The way from data to latents."""

    @abc.abstractmethod
    def data(self, rows: Rows, place: Place) -> Route:
        """The way from latents to data."""

    def is_current(self) -> bool:
        """Whether it still is what its module does."""
        return True


def _moves(panel: Panel, out: Sequence[int], source: Sequence[int]) -> Program:
    """Copies of rows, neighbours together."""
    operations: list[Operation] = []
    for to, since in zip(out, source, strict=True):
        last = operations[-1] if operations else None
        if last and (to, since) == (last.out + last.rows, last.source + last.rows):
            operations[-1] = last._replace(rows=last.rows + 1)
        else:
            operations.append(Operation(Code.COPY, panel, to, 1, since))
    return Program(tuple(operations))


def _both(wanted: Program, other: Program) -> dict[tuple[bool, bool], Program]:
    """A way back, whether slopes by the inputs are wanted or not; there is no context."""
    return {(x, c): wanted if x else other for x in (True, False) for c in (True, False)}


@dataclass(frozen=True, eq=False)
class Permuted(Step):
    """The features in another order: output i is input `order[i]`."""

    order: tuple[int, ...]

    @property
    def features(self) -> int:
        return len(self.order)

    @property
    def owners(self) -> Sequence[Owner]:
        return ()

    def latents(self, rows: Rows, place: Place) -> Route:
        return self._moved(rows, place, self.order)

    def data(self, rows: Rows, place: Place) -> Route:
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return self._moved(rows, place, inverse)

    def _moved(self, rows: Rows, place: Place, order: Sequence[int]) -> Route:
        out = rows.take(len(order))
        new = range(out, out + len(order))
        old = [place.inputs + one for one in order]
        back = _moves(Panel.SLOPES, old, new)
        return Route(out, _moves(Panel.VALUES, new, old), _both(back, Program()), Program())


@dataclass(frozen=True, eq=False)
class Elementwise(Step):
    """The map of each feature by parameters of its own, each a vector with shape (features,)."""

    kernel: Kernel
    vectors: tuple[Owner, ...]

    @property
    def features(self) -> int:
        held, name = self.vectors[0]
        return len(held[name])

    @property
    def owners(self) -> Sequence[Owner]:
        return self.vectors

    def latents(self, rows: Rows, place: Place) -> Route:
        return self._route(rows, place, Code.EVALUATE, Code.DIFFERENTIATE)

    def data(self, rows: Rows, place: Place) -> Route:
        return self._route(rows, place, Code.INVERT, Code.SOLVE)

    def _route(self, rows: Rows, place: Place, there: Code, back: Code) -> Route:
        before = rows.next
        phi = rows.take(self.features * len(self.vectors))
        rows.give_back(before)
        out = rows.take(self.features) if rows.kept else place.inputs
        ends: dict[str, int] = {"columns": len(self.vectors), "layer": phi, "offset": place.ladj}
        writer, backward, gradients = Writer(), Writer(), Writer()
        for number in range(len(self.vectors)):
            step, vector = len(self.vectors), place.vector + number
            writer.fill(Panel.VALUES, phi + number, self.features, vector, step)
            for feature in range(self.features):
                row = phi + feature * step + number
                gradients.write(
                    Code.GRADIENT,
                    Panel.SLOPES,
                    row,
                    1,
                    place.ones,
                    columns=1,
                    layer=vector,
                    offset=feature,
                )
        writer.map(
            there,
            Panel.VALUES,
            self.kernel,
            out=out,
            rows=self.features,
            source=place.inputs,
            **ends,
        )
        # Where values are inverted, data are the outputs, and slopes by them are the sources.
        data, latents = (place.inputs, out) if there is Code.EVALUATE else (out, place.inputs)
        backward.map(
            back,
            Panel.SLOPES,
            self.kernel,
            out=data if back is Code.DIFFERENTIATE else latents,
            rows=self.features,
            source=latents if back is Code.DIFFERENTIATE else data,
            **ends,
        )
        done = backward.done()
        return Route(out, writer.done(), _both(done, done), gradients.done())


@dataclass(frozen=True, eq=False)
class Conditioned(Step):
    """The map of each feature by parameters that a masked network makes of others and the context.

    The network reads, and parameterizes, the features in an `order`, unless that is None.
    """

    conditioner: MaskedMLP
    kernel: Kernel
    order: tuple[int, ...] | None = None
    trunk: Any = field(init=False)
    on_context: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk", self.conditioner.trunk)
        object.__setattr__(self, "on_context", self.conditioner.context)

    @cached_property
    def owners(self) -> Sequence[Owner]:
        layers: list[nn.Module] = list(self.conditioner.layers)
        found = [owner(layer, name) for name in ("weight", "bias") for layer in layers]
        context = self.conditioner.context
        return found if context is None else [*found, owner(context, "weight")]

    @property
    def features(self) -> int:
        return self.conditioner.in_features

    @property
    def is_costly(self) -> bool:
        return True

    @property
    def context(self) -> int:
        layer = self.conditioner.context
        return 0 if layer is None else layer.in_features

    def is_current(self) -> bool:
        net = self.conditioner
        same = net.trunk is self.trunk and net.context is self.on_context
        return same and all(held.get(name) is not None for held, name in self.owners)

    def latents(self, rows: Rows, place: Place) -> Route:
        features, kept = self.conditioner.in_features, rows.kept
        inputs, moved, returned = self._ordered(rows, place)
        first = rows.next
        layout = self._layout(rows, place, inputs)
        rows.give_back(first)
        z = rows.take(features) if kept else inputs
        writer = Writer(layout)
        writer.forward()
        where: dict[str, int] = {
            "rows": features,
            "columns": self.conditioner.out_features // features,
            "layer": layout.sums[-1],
            "offset": place.ladj,
        }
        writer.map(Code.EVALUATE, Panel.VALUES, self.kernel, out=z, source=inputs, **where)
        out, unmoved, back_moved = self._unordered(rows, z)
        there = joined([moved, self._sums(layout, place), writer.done(), unmoved])
        back = {}
        for x_wanted in (True, False):
            for c_wanted in (True, False):
                writer = Writer(layout)
                writer.map(
                    Code.DIFFERENTIATE, Panel.SLOPES, self.kernel, out=inputs, source=z, **where
                )
                writer.backward(inputs=x_wanted)
                parts = [back_moved, writer.done(), returned if x_wanted else Program()]
                parts += [self._to_context(layout, place)] if c_wanted else []
                back[x_wanted, c_wanted] = joined(parts)
        return Route(out, there, back, self._gradients(layout, place))

    def data(self, rows: Rows, place: Place) -> Route:
        features = self.conditioner.in_features
        # The data take the place of the latents, which are needed no more; the slopes alike.
        inputs, moved, returned = self._ordered(rows, place, copied=rows.kept)
        first = rows.next
        layout = self._layout(rows, place, inputs)
        rows.give_back(first)
        plan = Plan(self.conditioner, layout, self.kernel, ladj=place.ladj)
        out, unmoved, back_moved = self._unordered(rows, inputs)
        there = joined([moved, self._sums(layout, place), plan.inverse, unmoved])
        backs = joined([back_moved, plan.reverse, returned])
        with_context = joined([backs, self._to_context(layout, place)])
        back = {(x, c): with_context if c else backs for x in (True, False) for c in (True, False)}
        return Route(out, there, back, self._gradients(layout, place))

    def _ordered(
        self, rows: Rows, place: Place, copied: bool = False
    ) -> tuple[int, Program, Program]:
        """The row of the features in the network's order, how they come there, and how back."""
        features = self.conditioner.in_features
        if self.order is None and not copied:
            return place.inputs, Program(), Program()
        inputs = rows.take(features)
        new = range(inputs, inputs + features)
        old = [place.inputs + one for one in self.order or range(features)]
        return inputs, _moves(Panel.VALUES, new, old), _moves(Panel.SLOPES, old, new)

    def _unordered(self, rows: Rows, ordered: int) -> tuple[int, Program, Program]:
        """The opposite of `_ordered`, for what is in the network's order."""
        features = self.conditioner.in_features
        if self.order is None:
            return ordered, Program(), Program()
        out = rows.take(features)
        new = [out + one for one in self.order]
        old = range(ordered, ordered + features)
        return out, _moves(Panel.VALUES, new, old), _moves(Panel.SLOPES, old, new)

    def _layout(self, rows: Rows, place: Place, inputs: int) -> Layout:
        layout: Layout = self.trunk.layout(
            kept=rows.kept, inputs=inputs, first=rows.next, vector=place.vector
        )
        rows.take(layout.end - layout.first)
        return layout

    def _context(self, layout: Layout, place: Place) -> Writer | None:
        """A writer for the layer of the context, which adds to the first sums."""
        context = self.conditioner.context
        if context is None:
            return None
        assert isinstance(context, MaskedLinear)
        return Writer(
            Layout(
                [context.stairs],
                frozenset(),
                layout.activation,
                in_place=True,
                inputs=place.context,
                first=layout.sums[0],
                vector=layout.vector + 2 * len(layout.stairs),
            )
        )

    def _sums(self, layout: Layout, place: Place) -> Program:
        """What the sums begin with: biases, and what the context adds."""
        writer = Writer(layout)
        writer.biases()
        context = self._context(layout, place)
        if context is None:
            return writer.done()
        stair = context.stairs[0]
        context.product(0, 0, stair.rows, 0, stair.columns)
        return joined([writer.done(), context.done()])

    def _to_context(self, layout: Layout, place: Place) -> Program:
        context = self._context(layout, place)
        if context is None:
            return Program()
        stair = context.stairs[0]
        context.transposed(0, 0, stair.rows, 0, stair.columns)
        return context.done()

    def _gradients(self, layout: Layout, place: Place) -> Program:
        writer = Writer(layout)
        writer.gradients(place.ones)
        context = self._context(layout, place)
        if context is None:
            return writer.done()
        context.gradient(0)
        return joined([writer.done(), context.done()])


@dataclass(frozen=True, eq=False)
class Inverted(Step):
    """A step with its directions exchanged."""

    step: Step

    @classmethod
    def of(cls, step: Step) -> Step:
        """The inverse of a step, the same for the same."""
        if isinstance(step, Inverted):
            return step.step
        if "inverted" not in step.__dict__:
            object.__setattr__(step, "inverted", cls(step))
        return step.__dict__["inverted"]  # type: ignore[no-any-return]

    @property
    def owners(self) -> Sequence[Owner]:
        return self.step.owners

    @property
    def features(self) -> int:
        return self.step.features

    @property
    def is_costly(self) -> bool:
        return self.step.is_costly

    @property
    def context(self) -> int:
        return self.step.context

    def is_current(self) -> bool:
        return self.step.is_current()

    def latents(self, rows: Rows, place: Place) -> Route:
        return self.step.data(rows, place)

    def data(self, rows: Rows, place: Place) -> Route:
        return self.step.latents(rows, place)


def tensors(owners: Sequence[Owner]) -> list[Tensor]:
    """What is there now."""
    return [held[name] for held, name in owners]
