"""The inverse of an autoregressive transform by one sweep, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from maskedflow.nn import MaskedLinear, MaskedMLP
from maskedflow.staircase import Staircase

from .compiled import CompiledForward, activation_code, compiled_reverse
from .engine import Forward, Reverse, Sweep, Weights
from .plan import Plan
from .steps import TorchForward, torch_reverse

__all__ = ["invert"]

#: The bytes of activations that a batch may have, so that they stay in a cache.
CACHE_BYTES = 2**24
#: Generations of so many features are steps for matrix products, smaller ones for the kernel.
WIDE_GENERATION = 8

#: Makes the map z = f(x) of some features from their parameters (*, features, parameters).
Univariate = Callable[[Tensor], Any]

#: What the compiled kernel calls a univariate map, and its parameters.
Kernel = tuple[int, tuple[float, ...]]

_plans: WeakKeyDictionary[MaskedMLP, tuple[list[Staircase], Plan]] = WeakKeyDictionary()


def plan_of(conditioner: MaskedMLP) -> Plan:
    """The plan of a conditioner, made once."""
    layout = [cast(MaskedLinear, layer).stairs for layer in conditioner.layers]
    known, plan = _plans.get(conditioner, ([], None))
    if plan is None or any(a is not b for a, b in zip(known, layout, strict=True)):
        plan = Plan.of(conditioner)
        _plans[conditioner] = layout, plan
    return plan


def invert(
    conditioner: MaskedMLP,
    univariate: Univariate,
    z: Tensor,
    c: Tensor | None = None,
    kernel: Kernel | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Inverts z = f(x), an autoregressive map with a masked conditioner, in one sweep.

    Each weight is used once, so this costs what the masks' non-zeros cost: about half of a dense
    pass, not one pass a generation. Gradients come from the implicit function theorem,
    :math:`dx = J^{-1} (dz - \partial_\theta f \, d\theta)`, for a reverse sweep that solves with
    the transposed triangular Jacobian, and a density's forward and backward pass.

    Args:
        conditioner: The network of the parameters, (*, D) to (*, D * parameters), with generations.
        univariate: Makes the map of features from parameters of shape (*, features, parameters).
        z: The latent, with shape (*, D).
        c: The context, with shape (*, context), which broadcasts against z.
        kernel: What the compiled kernel calls the map, if it knows it.

    Returns:
        The data x, with shape (*, D), and the ladj of the inverse, with shape (*,).
    """
    batch = z.shape[:-1] if c is None else torch.broadcast_shapes(z.shape[:-1], c.shape[:-1])
    z = z.expand(*batch, z.shape[-1])
    rows = z.reshape(-1, z.shape[-1])
    with torch.no_grad():
        added = None
        if c is not None and conditioner.context is not None:
            added = conditioner.context(c)
            added = added.expand(*batch, -1).reshape(len(rows), added.shape[-1])
        x, ladj = _sweep(conditioner, univariate, kernel, rows.detach(), added)
    x, ladj = x.view(z.shape), ladj.view(batch)
    sources = (z, c, *conditioner.parameters())
    if not torch.is_grad_enabled() or not any(s is not None and s.requires_grad for s in sources):
        return x, ladj
    phi = conditioner(x, c).unflatten(-1, (z.shape[-1], -1))
    residual = z - univariate(phi)(x)
    x = _Implicit.apply(x, residual, conditioner, univariate, c)  # type: ignore[no-untyped-call]
    return x, ladj


def _sweep(
    conditioner: MaskedMLP,
    univariate: Univariate,
    kernel: Kernel | None,
    z: Tensor,
    added: Tensor | None,
) -> tuple[Tensor, Tensor]:
    plan = plan_of(conditioner)
    weights = Weights(conditioner, plan)
    inside: Forward = TorchForward(conditioner.activation, partial(_invert, univariate))
    activation = activation_code(conditioner.activation)
    if kernel is not None and activation is not None and _is_compiled(plan, z):
        inside = CompiledForward(activation, kernel)
    x, ladj = torch.empty_like(z), z.new_empty(len(z))
    for part in _parts(plan, z):
        sweep = Sweep(weights, part.stop - part.start)
        context = None if added is None else added[part].t()
        sweep.forward(z[part].t().contiguous(), context, conditioner.activation, inside)
        x[part], ladj[part] = sweep.x.t(), sweep.ladj
    return x, ladj


def _is_compiled(plan: Plan, like: Tensor) -> bool:
    """Whether the compiled kernel does a step: on a CPU, and if one is too small for products."""
    thin = plan.features < WIDE_GENERATION * plan.generations
    return thin and like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64)


def _parts(plan: Plan, z: Tensor) -> list[slice]:
    """Batches that the cache holds, all of about the same size."""
    units = sum(edge[-1] for edge in plan.edges) + (2 + plan.parameters) * plan.features
    most = max(64, CACHE_BYTES // (units * z.element_size()))
    count = max(1, -(-len(z) // most))
    size = -(-len(z) // count)
    return [slice(start, min(start + size, len(z))) for start in range(0, len(z), max(size, 1))]


def _invert(univariate: Univariate, z: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    inverse = univariate(phi.permute(2, 0, 1).contiguous()).inv
    x, ladj = inverse.call_and_ladj(z.t())
    return x.t(), ladj.t()


class _Implicit(torch.autograd.Function):
    """x as a function of the residual z - f(x), which is zero: the implicit function theorem."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        conditioner: MaskedMLP,
        univariate: Univariate,
        c: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(x, c)
        ctx.conditioner, ctx.univariate = conditioner, univariate
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a second derivative through a sweep's samples is not implemented: use "
                "AutoregressiveTransform.reference_inverse"
            )
        x, c = ctx.saved_tensors
        conditioner: MaskedMLP = ctx.conditioner
        plan = plan_of(conditioner)
        weights = Weights(conditioner, plan)
        features = x.shape[-1]
        g, rows = gradient.reshape(-1, features), x.reshape(-1, features)
        if c is not None:
            c = c.expand(*x.shape[:-1], c.shape[-1]).reshape(len(rows), c.shape[-1])
        solution = torch.empty_like(g)
        inside = compiled_reverse if _is_compiled(plan, g) else torch_reverse
        for part in _parts(plan, g):
            own = None if c is None else c[part]
            solution[part] = _solve(
                conditioner, ctx.univariate, weights, rows[part], own, g[part], inside
            )
        return None, solution.view(gradient.shape), None, None, None


def _solve(
    conditioner: MaskedMLP,
    univariate: Univariate,
    weights: Weights,
    x: Tensor,
    c: Tensor | None,
    g: Tensor,
    inside: Reverse,
) -> Tensor:
    """Solves J^T v = g at x."""
    *sums, phi = conditioner.pre_activations(x, c)
    slopes = [_slope(conditioner.activation, total).t() for total in sums]
    with torch.enable_grad():
        x, phi = x.detach().requires_grad_(), phi.detach().requires_grad_()
        z = univariate(phi.unflatten(-1, (x.shape[-1], -1)))(x)
        slope_x, slope_phi = torch.autograd.grad(z.sum(), (x, phi), materialize_grads=True)
    sweep = Sweep(weights, len(x))
    v = g.t().contiguous()
    hidden = torch.cat(slopes) if slopes else v.new_empty(0, len(x))
    sweep.reverse(v, slope_x.t(), slope_phi.t().contiguous(), hidden, inside)
    return v.t()


def _slope(activation: torch.nn.Module, total: Tensor) -> Tensor:
    with torch.enable_grad():
        total = total.detach().requires_grad_()
        (slope,) = torch.autograd.grad(activation(total).sum(), total)
    return slope
