"""The inverse of an autoregressive transform by one sweep, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from maskedflow.kernels import Activation
from maskedflow.nn import MaskedMLP
from maskedflow.staircase import Layout, Trunk, is_traced

from .plan import Plan
from .run import Sweep, Univariate
from .traced import trace

#: Blocks of a sweep in torch operations: fewer and larger ones than the kernel's.
MOST_BLOCKS, SMALLEST_BLOCK = 16, 8

_plans: WeakKeyDictionary[Trunk, Plan] = WeakKeyDictionary()


def plan_of(conditioner: MaskedMLP) -> Plan:
    """The plan of a conditioner, made once."""
    trunk = conditioner.trunk
    if trunk not in _plans:
        code = trunk.code or (Activation.RELU, 0.0)
        layout = Layout(trunk.stairs, trunk.skips, code, in_place=False)
        features = conditioner.in_features
        size = max(SMALLEST_BLOCK, features // MOST_BLOCKS)
        _plans[trunk] = Plan(conditioner, layout, block_features=size, group=max(layout.widths))
    return _plans[trunk]


def invert(
    conditioner: MaskedMLP,
    univariate: Univariate,
    z: Tensor,
    c: Tensor | None = None,
    learned: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    r"""Inverts z = f(x), an autoregressive map with a masked conditioner, in one sweep.

    Each weight is used once, so this costs what the masks' non-zeros cost: about half of a dense
    pass, not one pass a generation. Gradients come from the implicit function theorem,
    :math:`dx = J^{-1} (dz - \partial_\theta f \, d\theta)`, for a reverse sweep that solves with
    the transposed triangular Jacobian, and a density's backward pass. Where torch looks on, under
    torch.export, torch.compile or torch.func, they come from the operations of :func:`.trace`.

    The conditioner makes (*, D * parameters) of (*, D), and `univariate` the map of some features
    of (*, features, parameters); `learned` are parameters of its own. The context broadcasts
    against z, with shape (*, D).

    Returns:
        The data x, with shape (*, D), and the ladj of the inverse, with shape (*,).
    """
    batch, rows, first = conditioner.flat_batch(z, c)
    if is_traced():
        x, ladj = trace(conditioner, plan_of(conditioner), univariate, rows, first)
        return x.view(*batch, x.shape[-1]), ladj.view(batch)
    weights, biases = conditioner.packed_parameters()
    biases = [first, *biases[1:]]
    sweep = Sweep(conditioner, plan_of(conditioner), univariate)
    sources = (rows, first, *weights, *biases, *learned)
    graph = torch.is_grad_enabled() and any(source.requires_grad for source in sources)
    with torch.no_grad():
        x, ladj, memory = sweep.inverse(
            rows.detach(), weights, [bias.detach() for bias in biases], kept=graph
        )
    if graph:
        phi = conditioner.evaluate(x, weights, biases)
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
        sweep: Sweep,
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
