"""The parts of chains: what transforms write into programs. Pure data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

from maskedflow.kernels import Code, Kernel, Map, Panel
from maskedflow.nn import MaskedMLP
from maskedflow.staircase import Operation, Program, Writer, joined
from maskedflow.sweep import Plan

from .network import Network, context_of, is_watched, owners_of
from .step import Numbers, Owner, Place, Route, Rows, Step, parameters

#: The maps that are the identity if their parameters are 0, and leave 0 at 0 exactly.
_IDENTITY_AT_ZERO = (Map.AFFINE, Map.GAUSSIAN, Map.ADDITIVE, Map.SPLINE)


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


def _there_and_back(new: Sequence[int], old: Sequence[int]) -> tuple[Program, Program]:
    """Copies of values from old rows to new ones, and of slopes from new ones to old ones."""
    return _moves(Panel.VALUES, new, old), _moves(Panel.SLOPES, old, new)


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
        there, back = _there_and_back(new, old)
        return Route(out, there, lambda x, _: back if x else Program(), Program)


@dataclass(frozen=True, eq=False)
class Elementwise(Step):
    """The map of each feature by parameters of its own, in vectors with shape (features, *)."""

    kernel: Kernel
    vectors: tuple[Owner, ...]
    is_costly: bool = False

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
        sizes = [held[name].numel() // self.features for held, name in self.vectors]
        before = rows.next
        phi = rows.take(self.features * sum(sizes))
        rows.give_back(before)
        out = rows.take(self.features) if rows.kept else place.inputs
        ends: dict[str, int] = {"columns": sum(sizes), "layer": phi, "offset": place.ladj}
        vectors = [Numbers(place.vector + n, size, size) for n, size in enumerate(sizes)]
        fills, gradients = parameters(phi, self.features, vectors, place.ones)
        writer, backward = Writer(), Writer()
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
        return Route(out, fills + writer.done(), lambda *_: backward.done(), gradients)


@dataclass(frozen=True, eq=False)
class Conditioned(Step):
    """The map of each feature by parameters that a masked network makes of others and the context.

    The network reads, and parameterizes, the features in an `order`, unless that is None. If some
    may be absent, `present` says for each feature which number of the context is 0 then, or None:
    the feature is 0, and so are its parameters, by which the map leaves it at 0.
    """

    conditioner: MaskedMLP
    kernel: Kernel
    order: tuple[int, ...] | None = None
    present: tuple[int | None, ...] | None = None
    trunk: Any = field(init=False)
    on_context: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk", self.conditioner.trunk)
        object.__setattr__(self, "on_context", self.conditioner.context)

    @cached_property
    def owners(self) -> Sequence[Owner]:
        return owners_of(self.conditioner)

    @property
    def is_density(self) -> bool:
        return self.kernel[0] is Map.MIXTURE

    @property
    def features(self) -> int:
        return self.conditioner.in_features

    @property
    def is_costly(self) -> bool:
        return True

    @property
    def context(self) -> int:
        return context_of(self.conditioner)

    def is_current(self) -> bool:
        net = self.conditioner
        same = net.trunk is self.trunk and net._modules.get("context") is self.on_context
        return same and not is_watched(net)

    def of_observed(self, present: tuple[int | None, ...]) -> Conditioned | None:
        """The same of features that may be absent; None if there is no such map.

        It is the same for the same.
        """
        if self.kernel[0] not in _IDENTITY_AT_ZERO:
            return None
        known = self.__dict__.get("partial")
        if known is None or known.present != present:
            known = replace(self, present=present)
            object.__setattr__(self, "partial", known)
        return cast(Conditioned, known)

    def latents(self, rows: Rows, place: Place) -> Route:
        masked, returned_masked, present = self._masked(place)
        inputs, moved, returned = self._ordered(rows, place)
        first = rows.next
        network = Network(self.conditioner, rows, place, inputs, place.vector)
        rows.give_back(first)
        z = rows.take(self.features) if rows.kept else inputs
        out, unmoved, back_moved = self._unordered(rows, z)
        where = {
            "rows": self.features,
            "columns": self.conditioner.out_features // self.features,
            "layer": network.outputs,
            "offset": place.ladj,
        }
        there, back = Writer(), Writer()
        each = where["columns"]
        there.mask(Panel.VALUES, network.outputs, present, each)
        there.map(Code.EVALUATE, Panel.VALUES, self.kernel, out=z, source=inputs, **where)
        back.map(Code.DIFFERENTIATE, Panel.SLOPES, self.kernel, out=inputs, source=z, **where)
        back.mask(Panel.SLOPES, network.outputs, present, each)

        def write_back(x_wanted: bool, c_wanted: bool) -> Program:
            parts = [back_moved, back.done(), network.backward(x_wanted)]
            parts += [returned, returned_masked] if x_wanted else []
            parts += [network.to_context] if c_wanted else []
            return joined(parts)

        programs = [masked, moved, network.forward, there.done(), unmoved]
        return Route(out, joined(programs), write_back, lambda: network.gradients)

    def data(self, rows: Rows, place: Place) -> Route:
        # The data take the place of the latents, which are needed no more; the slopes alike.
        masked, returned_masked, present = self._masked(place)
        inputs, moved, returned = self._ordered(rows, place, copied=rows.kept)
        first = rows.next
        network = Network(self.conditioner, rows, place, inputs, place.vector)
        rows.give_back(first)
        where: dict[str, Any] = {"ladj": place.ladj, "present": present}
        plan = Plan(self.conditioner, network.layout, self.kernel, **where)
        out, unmoved, back_moved = self._unordered(rows, inputs)
        there = joined([masked, moved, network.sums, plan.inverse, unmoved])

        def write_back(_: bool, c_wanted: bool) -> Program:
            context = network.to_context if c_wanted else Program()
            return joined([back_moved, plan.reverse, returned, returned_masked, context])

        return Route(out, there, write_back, lambda: network.gradients)

    def _masked(self, place: Place) -> tuple[Program, Program, Sequence[int | None]]:
        """How absent features become 0, and slopes by them; the rows that tell, as it has them."""
        none: list[int | None] = [None] * self.features
        present = [p if p is None else place.context + p for p in self.present or none]
        there, back = Writer(), Writer()
        there.mask(Panel.VALUES, place.inputs, present)
        back.mask(Panel.SLOPES, place.inputs, present)
        ordered = [present[one] for one in self.order or range(self.features)]
        return there.done(), back.done(), ordered

    def _ordered(
        self, rows: Rows, place: Place, copied: bool = False
    ) -> tuple[int, Program, Program]:
        """The row of the features in the network's order, how they come there, and how back."""
        if self.order is None and not copied:
            return place.inputs, Program(), Program()
        inputs = rows.take(self.features)
        new = range(inputs, inputs + self.features)
        old = [place.inputs + one for one in self.order or range(self.features)]
        return inputs, *_there_and_back(new, old)

    def _unordered(self, rows: Rows, ordered: int) -> tuple[int, Program, Program]:
        """The opposite of `_ordered`, for what is in the network's order."""
        if self.order is None:
            return ordered, Program(), Program()
        out = rows.take(self.features)
        new = [out + one for one in self.order]
        return out, *_there_and_back(new, range(ordered, ordered + self.features))


@dataclass(frozen=True, eq=False)
class Coupled(Step):
    """The map of some features by parameters that networks make of the others and the context.

    Each network makes as many parameters of a feature as its outputs are for.
    """

    conditioners: tuple[MaskedMLP, ...]
    kernel: Kernel
    kept: tuple[int, ...]
    mapped: tuple[int, ...]
    trunks: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunks", tuple(one.trunk for one in self.conditioners))

    @cached_property
    def owners(self) -> Sequence[Owner]:
        return [one for conditioner in self.conditioners for one in owners_of(conditioner)]

    @property
    def features(self) -> int:
        return len(self.kept) + len(self.mapped)

    @property
    def is_costly(self) -> bool:
        return True

    @property
    def context(self) -> int:
        return context_of(self.conditioners[0])

    def is_current(self) -> bool:
        return all(
            one.trunk is trunk and not is_watched(one)
            for one, trunk in zip(self.conditioners, self.trunks, strict=True)
        )

    def latents(self, rows: Rows, place: Place) -> Route:
        return self._route(rows, place, Code.EVALUATE, Code.DIFFERENTIATE)

    def data(self, rows: Rows, place: Place) -> Route:
        return self._route(rows, place, Code.INVERT, Code.SOLVE)

    def _route(self, rows: Rows, place: Place, there: Code, back: Code) -> Route:
        mapped = len(self.mapped)
        # A single feature is mapped, by a network whose one input is masked.
        inputs, before = rows.take(max(len(self.kept), 1)), rows.take(mapped)
        after = rows.take(mapped) if rows.kept else before
        out = rows.take(self.features)
        first, vector = rows.next, place.vector
        networks = []
        for conditioner in self.conditioners:
            networks.append(Network(conditioner, rows, place, inputs, vector))
            vector += len(owners_of(conditioner))
        sizes = [one.out_features // mapped for one in self.conditioners]
        phi, gathered, scattered = networks[0].outputs, Program(), Program()
        if len(networks) > 1:
            phi, total = rows.take(mapped * sum(sizes)), sum(sizes)
            places, start = [], 0
            for network, size in zip(networks, sizes, strict=True):
                places += [
                    (
                        phi + feature * total + start + number,
                        network.outputs + feature * size + number,
                    )
                    for feature in range(mapped)
                    for number in range(size)
                ]
                start += size
            gathered, scattered = _there_and_back(*zip(*places, strict=True))
        rows.give_back(first)

        given = [place.inputs + one for one in (*self.kept, *self.mapped)]
        own = [*range(inputs, inputs + len(self.kept)), *range(before, before + mapped)]
        new = [*range(inputs, inputs + len(self.kept)), *range(after, after + mapped)]
        split, returned = _there_and_back(own, given)
        merged, taken = _there_and_back([out + one for one in (*self.kept, *self.mapped)], new)
        where = {"rows": mapped, "columns": sum(sizes), "layer": phi, "offset": place.ladj}
        forward, backward, zeros = Writer(), Writer(), Writer()
        zeros.fill(Panel.VALUES, inputs, 1 - min(len(self.kept), 1))
        zeros.fill(Panel.SLOPES, inputs, 1 - min(len(self.kept), 1))
        forward.map(there, Panel.VALUES, self.kernel, out=after, source=before, **where)
        backward.map(back, Panel.SLOPES, self.kernel, out=before, source=after, **where)
        programs = [zeros.done(), split, *(one.forward for one in networks), gathered]

        def write_back(_: bool, c_wanted: bool) -> Program:
            parts = [zeros.done(), taken, backward.done(), scattered]
            parts += [one.backward(True) for one in networks]
            parts += [one.to_context for one in networks] if c_wanted else []
            return joined([*parts, returned])

        return Route(
            out,
            joined([*programs, forward.done(), merged]),
            write_back,
            lambda: joined([one.gradients for one in networks]),
        )


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
