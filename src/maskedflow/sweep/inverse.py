"""The inverse of an autoregressive transform by one sweep, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from maskedflow.kernels import Kernel
from maskedflow.nn import MaskedMLP
from maskedflow.staircase import Layout, Trunk

from .plan import Plan
from .run import CompiledSweep, InterpretedSweep, Univariate

#: Blocks of a sweep in torch operations: fewer and larger ones than the kernel's.
MOST_BLOCKS, SMALLEST_BLOCK = 16, 8

_plans: WeakKeyDictionary[Trunk, dict[str, Plan]] = WeakKeyDictionary()


def plan_of(conditioner: MaskedMLP, kind: str) -> Plan:
    """A plan of a conditioner, made once: "kept" or "transient" for the kernel, or "torch"."""
    trunk = conditioner.trunk
    plans = _plans.setdefault(trunk, {})
    if kind not in plans:
        if kind == "torch":
            layout = Layout(trunk.stairs, trunk.skips, in_place=False)
            features = conditioner.in_features
            size = max(SMALLEST_BLOCK, features // MOST_BLOCKS)
            plans[kind] = Plan(conditioner, layout, block_features=size, group=features)
        else:
            plans[kind] = Plan(conditioner, trunk.kept if kind == "kept" else trunk.transient)
    return plans[kind]


def invert(
    conditioner: MaskedMLP,
    univariate: Univariate,
    z: Tensor,
    c: Tensor | None = None,
    kernel: Kernel | None = None,
    learned: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    r"""Inverts z = f(x), an autoregressive map with a masked conditioner, in one sweep.

    Each weight is used once, so this costs what the masks' non-zeros cost: about half of a dense
    pass, not one pass a generation. Gradients come from the implicit function theorem,
    :math:`dx = J^{-1} (dz - \partial_\theta f \, d\theta)`, for a reverse sweep that solves with
    the transposed triangular Jacobian, and a density's backward pass.

    The conditioner makes (*, D * parameters) of (*, D), and `univariate` the map of some features
    of (*, features, parameters); `kernel` is what the compiled kernel calls it, and `learned` are
    parameters of its own. The context broadcasts against z, with shape (*, D).

    Returns:
        The data x, with shape (*, D), and the ladj of the inverse, with shape (*,).
    """
    batch, rows, first = conditioner.flat_batch(z, c)
    weights, biases = conditioner.packed_parameters()
    biases = [first, *biases[1:]]
    sweep: CompiledSweep | InterpretedSweep
    if kernel is not None and conditioner.trunk.is_compiled(z) and weights[0].dtype == z.dtype:
        kept, transient = plan_of(conditioner, "kept"), plan_of(conditioner, "transient")
        sweep = CompiledSweep(conditioner, kept, transient, kernel)
    else:
        sweep = InterpretedSweep(conditioner, plan_of(conditioner, "torch"), univariate)
    sources = (rows, first, *weights, *biases, *learned)
    graph = torch.is_grad_enabled() and any(source.requires_grad for source in sources)
    with torch.no_grad():
        x, ladj, phi, memory = sweep.inverse(
            rows.detach(), weights, [bias.detach() for bias in biases], kept=graph
        )
    if graph:
        if phi is None:
            phi = conditioner.evaluate(x, weights, biases)
        else:
            phi = conditioner.trunk.with_gradient(x, weights, biases, phi, memory)
        residual = rows - univariate(phi.unflatten(-1, (x.shape[-1], -1)))(x)
        x = _Implicit.apply(x, residual, phi, sweep, weights, memory, univariate)  # type: ignore[no-untyped-call]
    return x.view(*batch, x.shape[-1]), ladj.view(batch)


class _Implicit(torch.autograd.Function):
    """x as a function of the residual z - f(x), which is zero: the implicit function theorem."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        phi: Tensor,
        sweep: CompiledSweep | InterpretedSweep,
        weights: Sequence[Tensor],
        memory: Any,
        univariate: Callable[[Tensor], Any],
    ) -> Tensor:
        ctx.save_for_backward(x, phi, *weights)
        ctx.sweep, ctx.memory, ctx.univariate = sweep, memory, univariate
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a second derivative through a sweep's samples is not implemented: use "
                "AutoregressiveTransform.reference_inverse"
            )
        x, phi, *weights = ctx.saved_tensors
        with torch.enable_grad():
            x, phi = x.detach().requires_grad_(), phi.detach().requires_grad_()
            z = ctx.univariate(phi.unflatten(-1, (x.shape[-1], -1)))(x)
            slopes = torch.autograd.grad(z.sum(), (x, phi), materialize_grads=True)
        solution = ctx.sweep.solve(weights, ctx.memory, gradient, *slopes)
        return None, solution, None, None, None, None, None
