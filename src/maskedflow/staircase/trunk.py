"""A chain of packed masked layers: evaluated, and differentiated.

On a CPU, with an activation that the kernel knows, an evaluation is a compiled program, and so is
its gradient. Anything else goes layer by layer through torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskedflow.kernels import Activation, Panel

from .layout import Layout
from .packing import Staircase


def is_traced() -> bool:
    """Whether torch.func or torch.compile looks on: they see through tensor operations only."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def activation_code(activation: nn.Module) -> tuple[Activation, float] | None:
    """What the kernel calls an activation, and its parameter; None if it does not know it."""
    codes = {
        nn.ReLU: Activation.RELU,
        nn.Tanh: Activation.TANH,
        nn.ELU: Activation.ELU,
        nn.LeakyReLU: Activation.LEAKY_RELU,
        nn.SiLU: Activation.SILU,
        nn.Sigmoid: Activation.SIGMOID,
        nn.Softplus: Activation.SOFTPLUS,
        nn.GELU: Activation.GELU,
    }
    unusual = {"beta": 1, "threshold": 20, "approximate": "none"}
    if any(getattr(activation, name, value) != value for name, value in unusual.items()):
        return None
    code = codes.get(type(activation))
    parameter = getattr(activation, "alpha", getattr(activation, "negative_slope", 0.0))
    return None if code is None else (code, parameter)


def masked_product(x: Tensor, weight: Tensor, bias: Tensor, stair: Staircase) -> Tensor:
    """The masked product x W^T + b of x, (*, columns), and b, (*, rows). Differentiable twice."""
    if is_traced():
        return F.linear(x, stair.unpack(weight)) + bias
    shape = x.shape[:-1]
    if bias.ndim > 1:
        shape = torch.broadcast_shapes(shape, bias.shape[:-1])
        bias = bias.expand(*shape, -1).reshape(-1, bias.shape[-1])
        x = x.expand(*shape, -1)
    y: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), weight, bias, stair)  # type: ignore[no-untyped-call]
    return y.view(*shape, y.shape[-1])


def layer_sums(
    x: Tensor,
    layers: int,
    product: Callable[[int, Tensor], Tensor],
    activation: Callable[[Tensor], Tensor],
    skips: frozenset[int],
) -> list[Tensor]:
    """Evaluates a chain layer by layer: what goes into each activation, and last the outputs.

    The `product` makes the sums of a layer of its number and what it reads.
    """
    sums: list[Tensor] = []
    for layer in range(layers):
        total = product(layer, activation(sums[-1]) if sums else x)
        sums.append(total + sums[-2] if layer in skips else total)
    return sums


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stair: Staircase) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.stair = stair
        return stair.product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        stair: Staircase = ctx.stair
        dense = torch.is_grad_enabled()  # a gradient of the gradient is wanted
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = dy @ stair.unpack(weight) if dense else stair.input_gradient(dy, weight)
        if ctx.needs_input_grad[1]:
            dw = stair.pack(dy.t() @ x) if dense else stair.weight_gradient(dy, x)
        return dx, dw, dy.sum(dim=0) if bias.ndim == 1 else dy, None


class Trunk:
    """A chain of packed masked layers, the outputs last, with an activation between.

    The layers in `skips` add the sums two below theirs.
    """

    def __init__(
        self, stairs: Sequence[Staircase], skips: frozenset[int], activation: nn.Module
    ) -> None:
        self.stairs, self.skips, self.activation = tuple(stairs), skips, activation
        self.code = activation_code(activation)
        #: For an evaluation that leaves nothing behind.
        self.transient = self.layout(kept=False)
        #: For one that a gradient follows.
        self.kept = self.layout(kept=True)

    def layout(self, *, kept: bool, **places: Any) -> Layout:
        """Where the numbers of an evaluation are, at `places` (see `Layout`).

        If they are `kept` for a gradient, activations may not take the place of sums, but for
        ReLU, whose slope is known from its value.
        """
        in_place = not kept or type(self.activation) is nn.ReLU
        code = self.code or (Activation.RELU, 0.0)
        return Layout(self.stairs, self.skips, code, in_place=in_place, **places)

    def is_compiled(self, x: Tensor) -> bool:
        """Whether the compiled kernel evaluates this chain for x."""
        return (
            self.code is not None
            and x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.float64)
            and not is_traced()
        )

    def __call__(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        """Maps rows x to outputs; the first bias may have a row a sample. Differentiable twice."""
        parameters = (*weights, *biases)
        if torch.is_grad_enabled() and (
            x.requires_grad or any(p.requires_grad for p in parameters)
        ):
            return _Evaluation.apply(self, x, *parameters)  # type: ignore[no-untyped-call, no-any-return]
        return self.evaluate(x, weights, biases, kept=False)[0]

    def evaluate(
        self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, kept: bool
    ) -> tuple[Tensor, Any]:
        """Outputs without a graph, and the panels of all numbers if they are to be kept."""
        from maskedflow.kernels import job

        layout = self.kept if kept else self.transient
        y = x.new_empty(len(x), layout.widths[-1])
        memory = None if kept else "values"
        panels = job.Panels(len(x), layout.end + 1, x, kept=kept, memory=memory)
        loads = [(x, layout.inputs, Panel.VALUES)]
        if rowwise := biases[0].ndim > 1:
            loads.append((biases[0], layout.sums[0], Panel.VALUES))
        job.run_panels(
            layout.onward if rowwise else layout.forward,
            job.addresses([*weights, *biases]),
            panels,
            loads=loads,
            stores=[(y, layout.sums[-1], Panel.VALUES)],
        )
        return y, panels if kept else None

    def gradient(
        self,
        dy: Tensor,
        values: Any,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        wanted: Sequence[bool],
    ) -> list[Tensor | None]:
        """The gradients of x, of each weight and of each bias, as far as they are wanted."""
        from maskedflow.kernels import job

        layout, batch = self.kept, len(dy)
        x_wanted, *parameters_wanted = wanted
        learns = any(parameters_wanted)
        dx = dy.new_empty(batch, layout.stairs[0].columns) if x_wanted else None
        stores = [] if dx is None else [(dx, layout.inputs, Panel.SLOPES)]
        of_bias = [torch.empty_like(bias) for bias in biases]
        if biases[0].ndim > 1:
            stores.append((of_bias[0], layout.sums[0], Panel.SLOPES))
        slopes = job.Panels(batch, layout.end + 1, dy, kept=learns, memory="slopes")
        job.run_panels(
            layout.backward,
            job.addresses([*weights, *biases]),
            values,
            slopes,
            loads=[(dy, layout.sums[-1], Panel.SLOPES)],
            stores=stores,
        )
        if not learns:
            return [dx, *(None for _ in parameters_wanted)]
        of_weight = [torch.empty_like(weight) for weight in weights]
        summed = [bias.new_empty(bias.shape[-1]) if bias.ndim > 1 else bias for bias in of_bias]
        job.sum_gradients(layout.gradients, job.addresses([*of_weight, *summed]), values, slopes)
        return [dx, *of_weight, *of_bias]

    def dense(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        """The same outputs, from tensor operations that anything can differentiate."""

        def product(layer: int, h: Tensor) -> Tensor:
            return F.linear(h, self.stairs[layer].unpack(weights[layer])) + biases[layer]

        return layer_sums(x, len(self.stairs), product, self.activation, self.skips)[-1]


class _Evaluation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trunk: Trunk, x: Tensor, *parameters: Tensor) -> Tensor:
        layers = len(trunk.stairs)
        y, ctx.panels = trunk.evaluate(x, parameters[:layers], parameters[layers:], kept=True)
        ctx.save_for_backward(x, *parameters)
        ctx.trunk = trunk
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        trunk: Trunk = ctx.trunk
        layers = len(trunk.stairs)
        x, *parameters = ctx.saved_tensors
        weights, biases = parameters[:layers], parameters[layers:]
        wanted = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted
            sources = [s for s, want in zip((x, *parameters), wanted, strict=True) if want]
            y = trunk.dense(x, weights, biases)
            found = iter(torch.autograd.grad(y, sources, dy, create_graph=True))
            return None, *(next(found) if want else None for want in wanted)
        return None, *trunk.gradient(dy, ctx.panels, weights, biases, wanted)
