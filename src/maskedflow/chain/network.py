"""The masked network of a step, at its place in a panel."""

from __future__ import annotations

from torch import nn

from maskedflow.nn import MaskedLinear, MaskedMLP
from maskedflow.staircase import Layout, Program, Writer, joined

from .step import Owner, Place, Rows, owner


class Network:
    """A masked network at its place in a panel, and the layer of its context beside it."""

    def __init__(
        self, conditioner: MaskedMLP, rows: Rows, place: Place, inputs: int, vector: int
    ) -> None:
        self.layout: Layout = conditioner.trunk.layout(
            kept=rows.kept, inputs=inputs, first=rows.next, vector=vector
        )
        rows.take(self.layout.end - self.layout.first)
        self.outputs = self.layout.sums[-1]
        self._ones = place.ones
        self._context: Layout | None = None
        if conditioner.context is not None:
            assert isinstance(conditioner.context, MaskedLinear)
            self._context = Layout(
                [conditioner.context.stairs],
                frozenset(),
                self.layout.activation,
                in_place=True,
                inputs=place.context,
                first=self.layout.sums[0],
                vector=vector + 2 * len(self.layout.stairs),
            )

    @property
    def sums(self) -> Program:
        """What sums begin with: biases, and what the context adds."""
        writer = Writer(self.layout)
        writer.biases()
        if self._context is None:
            return writer.done()
        (stair,) = self._context.stairs
        context = Writer(self._context)
        context.product(0, 0, stair.rows, 0, stair.columns)
        return joined([writer.done(), context.done()])

    @property
    def forward(self) -> Program:
        """From the inputs to the outputs."""
        writer = Writer(self.layout)
        writer.forward()
        return joined([self.sums, writer.done()])

    def backward(self, inputs: bool) -> Program:
        """From slopes by outputs to those by sums, and added to those by inputs, if wanted."""
        writer = Writer(self.layout)
        writer.backward(inputs)
        return writer.done()

    @property
    def to_context(self) -> Program:
        """From slopes by sums, added to those by the context."""
        if self._context is None:
            return Program()
        (stair,) = self._context.stairs
        writer = Writer(self._context)
        writer.transposed(0, 0, stair.rows, 0, stair.columns)
        return writer.done()

    @property
    def gradients(self) -> Program:
        """The gradients of all its vectors."""
        writer = Writer(self.layout)
        writer.gradients(self._ones)
        if self._context is None:
            return writer.done()
        context = Writer(self._context)
        context.gradient(0)
        return joined([writer.done(), context.done()])


def owners_of(conditioner: MaskedMLP) -> list[Owner]:
    """Where a network's vectors are kept: weights, biases, and the context's weight."""
    layers: list[nn.Module] = list(conditioner.layers)
    found = [owner(layer, name) for name in ("weight", "bias") for layer in layers]
    context = conditioner.context
    return found if context is None else [*found, owner(context, "weight")]


def is_known(conditioner: nn.Module) -> bool:
    """Whether the kernel can compute a network, and nobody watches its calls."""
    return (
        type(conditioner) is MaskedMLP
        and conditioner.trunk.code is not None
        and not is_watched(conditioner)
    )


def is_watched(module: nn.Module) -> bool:
    """Whether somebody wants its calls, by a hook or in place of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def context_of(conditioner: MaskedMLP) -> int:
    """How many features of context a network takes."""
    layer = conditioner.context
    return 0 if layer is None else layer.in_features
