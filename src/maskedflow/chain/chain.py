"""A chain of transforms, and what is computed with it: one call, and one node of the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedflow.kernels import ONES, Code, Panel
from maskedflow.staircase import Program, Writer, is_traced, joined, merged

from .step import Place, Route, Rows, Step, tensors

#: Evaluates the same in torch, from x and c: the output and the total.
Plain = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


class Places(NamedTuple):
    """The rows of a chain: its inputs first, then the context; the total, ones, and the outputs."""

    context: int
    total: int
    ones: int
    outputs: int
    height: int


class Way:
    """A chain in one direction: where its numbers are, and its programs."""

    def __init__(self, chain: Chain, *, inverse: bool, kept: bool) -> None:
        self.chain, self.inverse = chain, inverse
        rows = Rows(kept)
        inputs = rows.take(chain.features)
        context = rows.take(chain.context)
        total, ones = rows.take(1), rows.take(1)
        vector = 0
        starts = []
        for step in chain.steps:
            starts.append(vector)
            vector += len(step.owners)
        steps = [*zip(chain.steps, starts, strict=True)]
        self._routes: list[Route] = []
        for step, vector in reversed(steps) if inverse else steps:
            place = Place(inputs, context, total, ones, vector)
            self._routes.append(step.data(rows, place) if inverse else step.latents(rows, place))
            inputs = self._routes[-1].outputs
        self.places = Places(context, total, ones, inputs, rows.height)

    @property
    def is_density(self) -> bool:
        """Whether the total is the log-density, and the latents are of no interest."""
        return self.chain.is_normal and not self.inverse

    @cached_property
    def there(self) -> Program:
        """From inputs to outputs, with the ladj, or the log-density, as total."""
        places = self.places
        writer = Writer()
        writer.fill(Panel.VALUES, places.total, 1)
        end = Writer()
        if self.is_density and not self.chain.ends_in_density:
            end.write(Code.NORMAL, Panel.VALUES, places.total, self.chain.features, places.outputs)
        parts = [route.there for route in self._routes]
        return merged(joined([writer.done(), *parts, end.done()]))

    @cache  # noqa: B019 - as long-lived as the programs it keeps
    def back(self, x_wanted: bool, c_wanted: bool, learns: bool) -> Program:
        """From slopes by outputs and total to those that are wanted."""
        places = self.places
        writer = Writer()
        if self.is_density and not self.chain.ends_in_density:
            writer.write(
                Code.NORMAL_SLOPE, Panel.SLOPES, places.total, self.chain.features, places.outputs
            )
        if c_wanted:
            writer.fill(Panel.SLOPES, places.context, self.chain.context)
        if learns:
            writer.fill(Panel.VALUES, places.ones, 1, ONES)
        first, *rest = self._routes
        parts = [route.back(True, c_wanted) for route in reversed(rest)]
        return merged(joined([writer.done(), *parts, first.back(x_wanted, c_wanted)]))

    @cache  # noqa: B019
    def gradients(self, wanted: tuple[bool, ...]) -> Program:
        """The gradients of the vectors that are wanted."""
        program = joined([route.gradients() for route in self._routes])
        operations = tuple(one for one in program.operations if wanted[one.layer])
        holes = program.holes[[wanted[vector] for vector in program.holes[:, 0]]]
        return Program(operations, program.constants, holes)


class Chain:
    """Steps from data to latents, and a base N(0, I) if it `is_normal`.

    Its program is one, with one panel: no transform goes back to Python.

    Example:
        >>> from maskedflow.flows import MAF
        >>> chain = MAF(2, transforms=1, hidden_features=[3]).chain
        >>> print(chain.way(inverse=False, kept=False).there)
        2-3 = 0
        4-7 = vector 2 + vector 0 of 0-1, a(it)
        7-11 = vector 3 + vector 1 of 4-7
        0-2 = f(0-2), given 7-11
        2 += normal(0-2)
    """

    def __init__(self, steps: Sequence[Step], *, is_normal: bool = False) -> None:
        self.steps, self.is_normal = tuple(steps), is_normal
        #: Whether the last step gives the log-density, and there is nothing to be added.
        self.ends_in_density = self.steps[-1].is_density
        self.features = self.steps[0].features
        self.context = max(step.context for step in self.steps)
        self.owners = [one for step in self.steps for one in step.owners]
        self._shapes = [None if one is None else one.shape for one in tensors(self.owners)]
        self._ways: dict[tuple[bool, bool], Way] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ways": {}}

    def way(self, *, inverse: bool, kept: bool) -> Way:
        """A direction, and whether a gradient follows."""
        key = inverse, kept
        if key not in self._ways:
            self._ways[key] = Way(self, inverse=inverse, kept=kept)
        return self._ways[key]

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype, and on the device, of its vectors."""
        return next(one for one in tensors(self.owners) if one is not None)

    @property
    def is_computable(self) -> bool:
        """Whether the kernel can compute it as it is."""
        x = self.like.new_empty(1, self.features + self.context)
        c = x[:, self.features :] if self.context else None
        return self.vectors(x[:, : self.features], c) is not None

    def takes(self, c: Tensor | None) -> bool:
        """Whether a context is of its size."""
        return self.context == 0 if c is None else c.shape[-1:] == (self.context,)

    def vectors(self, x: Tensor, c: Tensor | None, *, inverse: bool = False) -> list[Tensor] | None:
        """The tensors of its steps, if the kernel can compute with these and with x and c."""
        if is_traced() or not all(step.is_current() for step in self.steps):
            return None
        dtype = x.dtype
        if dtype not in (torch.float32, torch.float64) or x.device.type != "cpu":
            return None
        if x.shape[-1:] != (self.features,) or not self.takes(c):
            return None
        if c is not None and (c.dtype != dtype or c.device != x.device):
            return None
        if torch.is_autocast_enabled("cpu"):
            return None
        found = []
        for one, shape in zip(tensors(self.owners), self._shapes, strict=True):
            # The weights of a functional_call are dense.
            if one is None or one.dtype is not dtype or one.shape != shape:
                return None
            if not one.is_cpu or not one.is_contiguous():
                return None
            found.append(one)
        if inverse and self.ends_in_density and _learns(x, c, found):
            return None
        return found

    @contextmanager
    def holding(self, vectors: Sequence[Tensor]) -> Iterator[None]:
        """Has its steps' modules hold other tensors, as in a call of long ago."""
        before = tensors(self.owners)
        try:
            for (held, name), vector in zip(self.owners, vectors, strict=True):
                held[name] = vector
            yield
        finally:
            for (held, name), old in zip(self.owners, before, strict=True):
                held[name] = old

    def __call__(
        self,
        x: Tensor,
        c: Tensor | None,
        vectors: Sequence[Tensor],
        plain: Plain | None = None,
        *,
        inverse: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Maps x, with shape (*, features), and sums up the ladj, or the log-density.

        Gradients follow, and theirs too, which `plain` gives, unless of an inverse.
        """
        shape = x.shape[:-1]
        if c is not None:
            if c.shape[:-1] != shape:
                shape = torch.broadcast_shapes(shape, c.shape[:-1])
                c, x = c.expand(*shape, self.context), x.expand(*shape, self.features)
            c = c.reshape(-1, self.context)
        x = x.reshape(-1, self.features)
        if _learns(x, c, vectors):
            y, total = _Node.apply(self, inverse, plain, x, c, *vectors)  # type: ignore[no-untyped-call]
        else:
            y, total, _ = self.evaluate(x, c, vectors, inverse=inverse, kept=False)
        return y.view(*shape, y.shape[-1]), total.view(shape)

    def evaluate(
        self,
        x: Tensor,
        c: Tensor | None,
        vectors: Sequence[Tensor],
        *,
        inverse: bool,
        kept: bool,
    ) -> tuple[Tensor, Tensor, Any]:
        """The outputs of rows x, none for a density, the total, and the panels if they are kept."""
        from maskedflow.kernels import job

        way = self.way(inverse=inverse, kept=kept)
        places = way.places
        y = x.new_empty(len(x), 0 if way.is_density else self.features)
        total = x.new_empty(len(x), 1)
        memory = None if kept else "values"
        panels = job.Panels(len(x), places.height, x, kept=kept, memory=memory)
        loads = [(x, 0, Panel.VALUES)]
        if c is not None:
            loads.append((c, places.context, Panel.VALUES))
        stores = [(total, places.total, Panel.VALUES), (y, places.outputs, Panel.VALUES)]
        job.run_panels(
            way.there,
            job.addresses(vectors),
            panels,
            loads=loads,
            stores=stores[:1] if way.is_density else stores,
        )
        return y, total[:, 0], panels if kept else None

    def gradient(
        self,
        dy: Tensor,
        dt: Tensor,
        panels: Any,
        vectors: Sequence[Tensor],
        wanted: Sequence[bool],
        *,
        inverse: bool,
        into: Sequence[Tensor | None] | None = None,
    ) -> list[Tensor | None]:
        """The gradients of x, of c and of each vector, as far as they are wanted.

        Those of vectors are written `into` tensors; into new ones if it is None.
        """
        from maskedflow.kernels import job

        way = self.way(inverse=inverse, kept=True)
        places, batch = way.places, panels.batch
        x_wanted, c_wanted, *vectors_wanted = wanted
        learns = any(vectors_wanted)
        dx = dt.new_empty(batch, self.features) if x_wanted else None
        dc = dt.new_empty(batch, self.context) if c_wanted else None
        stores = [
            (one, row, Panel.SLOPES)
            for one, row in ((dx, 0), (dc, places.context))
            if one is not None
        ]
        loads = [(dt[:, None], places.total, Panel.SLOPES)]
        if not way.is_density:
            loads.append((dy, places.outputs, Panel.SLOPES))
        slopes = job.Panels(batch, places.height, dt, kept=learns, memory="slopes")
        job.run_panels(
            way.back(x_wanted, c_wanted, learns),
            job.addresses(vectors),
            panels,
            slopes,
            loads=loads,
            stores=stores,
        )
        found = into or [
            torch.empty_like(v) if w else None for v, w in zip(vectors, vectors_wanted, strict=True)
        ]
        if learns:
            targets = [
                vector if one is None else one for one, vector in zip(found, vectors, strict=True)
            ]
            program = way.gradients(tuple(vectors_wanted))
            job.sum_gradients(program, job.addresses(targets), panels, slopes)
        return [dx, dc, *found]


def _learns(x: Tensor, c: Tensor | None, vectors: Sequence[Tensor]) -> bool:
    """Whether a gradient may follow."""
    return torch.is_grad_enabled() and (
        x.requires_grad
        or (c is not None and c.requires_grad)
        or any(vector.requires_grad for vector in vectors)
    )


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        chain: Chain,
        inverse: bool,
        plain: Plain | None,
        x: Tensor,
        c: Tensor | None,
        *vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        y, total, ctx.panels = chain.evaluate(x, c, vectors, inverse=inverse, kept=True)
        ctx.save_for_backward(x, c, *vectors)
        ctx.chain, ctx.inverse, ctx.plain = chain, inverse, plain
        return y, total

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dt: Tensor) -> tuple[Any, ...]:
        chain: Chain = ctx.chain
        x, c, *vectors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted
            if ctx.inverse:
                raise RuntimeError(
                    "a second derivative through a sweep's samples is not implemented: use "
                    "AutoregressiveTransform.reference_inverse"
                )
            sources = [s for s, want in zip((x, c, *vectors), wanted, strict=True) if want]
            with chain.holding(vectors):
                y, total = ctx.plain(x, c)
            pairs = [(total, dt)] if chain.is_normal else [(y, dy), (total, dt)]
            # A ladj may be the same whatever the sources are.
            pairs = [pair for pair in pairs if pair[0].requires_grad]
            outputs, upstream = zip(*pairs, strict=True)
            slopes = torch.autograd.grad(
                outputs, sources, upstream, create_graph=True, allow_unused=True
            )
            found = iter(slopes)
            return None, None, None, *(next(found) if want else None for want in wanted)
        gradients = chain.gradient(dy, dt, ctx.panels, vectors, wanted, inverse=ctx.inverse)
        return None, None, None, *gradients
