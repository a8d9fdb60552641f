"""A flow whose learned numbers are one parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Size, Tensor, nn

from maskedflow.chain import Chain
from maskedflow.distributions import NormalizingFlow
from maskedflow.flows import Flow


class PackedFlow(nn.Module):
    """A flow whose vectors and matrices are parts of one parameter, `weights`.

    Adam and the clipping of gradients, as sbi does them, go through parameters one by one, which
    takes longer than the gradient of a small flow. An embedding keeps its own parameters.

    Args:
        flow: The flow, with an embedding. Its parameters become buffers.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow
        self._learned = [
            (module, name)
            for part in (flow.transform, flow.base)
            for module in part.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None
        ]
        self.weights = nn.Parameter(torch.empty(0))
        self._pack()
        self.register_load_state_dict_post_hook(PackedFlow._pack)  # type: ignore[no-untyped-call]

    def _pack(self, _: object = None) -> None:
        """Takes over the flow's numbers; a layer that was loaded may have a new parameter."""
        values = []
        for module, name in self._learned:
            held = module._parameters if name in module._parameters else module._buffers
            values.append(cast(Tensor, held.pop(name)).detach())
        self._shapes = [value.shape for value in values]
        self.weights.data = torch.cat([value.flatten() for value in values])
        self._hold(self.weights.detach())

    def _hold(self, weights: Tensor) -> None:
        """Has the flow's buffers be parts of the weights."""
        for (module, name), part in zip(self._learned, self._parts(weights), strict=True):
            module._buffers[name] = part

    def _parts(self, weights: Tensor) -> list[Tensor]:
        parts = weights.split([shape.numel() for shape in self._shapes])
        return [
            part if len(shape) == 1 else part.view(shape)
            for part, shape in zip(parts, self._shapes, strict=True)
        ]

    def _follow(self) -> None:
        """Finds the weights again if they were moved, or this is a copy."""
        module, name = self._learned[0]
        if cast(Tensor, module._buffers[name]).data_ptr() != self.weights.data_ptr():
            self._hold(self.weights.detach())

    @contextmanager
    def learning(self, weights: Tensor) -> Iterator[Flow]:
        """The flow, of weights by which there are gradients."""
        self._hold(weights)
        try:
            yield self.flow
        finally:
            self._hold(self.weights.detach())

    def forward(self, c: Tensor) -> NormalizingFlow:
        """The density given c, without gradients by the weights."""
        self._follow()
        return cast(NormalizingFlow, self.flow(c))

    def log_prob(self, x: Tensor, c: Tensor) -> Tensor:
        """The log-densities of x given c, in nats."""
        if not torch.is_grad_enabled():
            return cast(Tensor, self(c).log_prob(x))
        self._follow()
        found = self._in_one_node(x, c)
        # What is not finite, the distribution looks at in double precision, or refuses.
        if found is not None and math.isfinite(found.detach().sum().item()):
            return found
        with self.learning(self.weights) as flow:
            return cast(Tensor, flow(c).log_prob(x))

    def _in_one_node(self, x: Tensor, c: Tensor) -> Tensor | None:
        """The log-densities as one node of the graph; None where the kernel cannot find them."""
        chain = self.flow.chain
        if chain is None:
            return None
        assert self.flow.embedding is not None
        c = self.flow.embedding(c)
        vectors = chain.vectors(x, c)
        if vectors is None:
            return None
        shape = x.shape[:-1]
        if c.shape[:-1] != shape:
            shape = torch.broadcast_shapes(shape, c.shape[:-1])
            x, c = x.expand(*shape, -1), c.expand(*shape, -1)
        rows = x.reshape(-1, x.shape[-1]), c.reshape(-1, c.shape[-1])
        found: Tensor = _LogProb.apply(self, chain, vectors, self.weights, *rows)  # type: ignore[no-untyped-call]
        return found.view(shape)

    def rsample_and_log_prob(self, shape: Size, c: Tensor) -> tuple[Tensor, Tensor]:
        """Draws points that have gradients, and their log-densities."""
        with self.learning(self.weights) as flow:
            found: tuple[Tensor, Tensor] = flow(c).rsample_and_log_prob(shape)
            return found

    def gradient_parts(self, gradient: Tensor, chain: Chain) -> list[Tensor | None]:
        """The parts of a gradient by the weights, in a chain's order of its vectors."""
        slots = [(id(module._buffers), name) for module, name in self._learned]
        parts = dict(zip(slots, self._parts(gradient), strict=True))
        return [parts.get((id(held), name)) for held, name in chain.owners]


class _LogProb(torch.autograd.Function):
    """The log-densities of rows, and their gradient by the weights, the rows and the contexts."""

    @staticmethod
    def forward(
        ctx: Any,
        packed: PackedFlow,
        chain: Chain,
        vectors: Sequence[Tensor],
        weights: Tensor,
        x: Tensor,
        c: Tensor,
    ) -> Tensor:
        _, total, ctx.panels = chain.evaluate(x, c, vectors, inverse=False, kept=True)
        ctx.save_for_backward(weights, x, c)
        ctx.packed, ctx.chain, ctx.vectors = packed, chain, vectors
        return total

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Any, ...]:
        packed: PackedFlow = ctx.packed
        weights, x, c = sources = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted
            with packed.learning(weights) as flow:
                total = flow.distribution(c).density(x)
            sources = [source for source, want in zip(sources, wanted, strict=True) if want]
            found = iter(torch.autograd.grad(total, sources, slopes, create_graph=True))
            return None, None, None, *(next(found) if want else None for want in wanted)
        learns, *others = wanted
        gradient = torch.empty_like(weights) if learns else None
        into: list[Tensor | None] = [None] * len(ctx.vectors)
        if gradient is not None:
            into = packed.gradient_parts(gradient, ctx.chain)
        others += [part is not None for part in into]
        dx, dc, *_ = ctx.chain.gradient(
            slopes, slopes, ctx.panels, ctx.vectors, others, inverse=False, into=into
        )
        return None, None, None, gradient, dx, dc
