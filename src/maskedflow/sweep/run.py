"""Runs the programs of a sweep in torch operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from maskedflow.kernels import Code
from maskedflow.nn import MaskedMLP
from maskedflow.staircase import Operation, Program

from .plan import Plan

#: The bytes of numbers that a batch may have, so that they stay in a cache.
CACHE_BYTES = 2**24

#: Makes the map z = f(x) of some features from their parameters (*, features, parameters).
Univariate = Callable[[Tensor], Any]


class Sweep:
    """Runs programs on a matrix, a column a sample, on any device; sums have rows of their own."""

    def __init__(self, conditioner: MaskedMLP, plan: Plan, univariate: Univariate) -> None:
        self.conditioner, self.plan, self.univariate = conditioner, plan, univariate

    def inverse(
        self, z: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, kept: bool
    ) -> tuple[Tensor, Tensor, Any]:
        """Maps rows z to x, the ladj, and what a gradient needs, if that is kept."""
        layout = self.plan.layout
        features = self.plan.features
        most = len(z) if kept else max(64, CACHE_BYTES // (layout.end * z.element_size()))
        x, ladj = z.new_empty(z.shape), z.new_empty(len(z))
        work = z.new_empty(layout.end + 1, 0)
        for start in range(0, len(z), max(most, 1)):
            part = slice(start, start + most)
            work = z.new_zeros(layout.end + 1, len(z[part]))
            work[:features] = z[part].t()
            for row, width, bias in zip(layout.sums, layout.widths, biases, strict=True):
                work[row : row + width] = bias[part].t() if bias.ndim > 1 else bias[:, None]

            def invert(one: Operation, work: Tensor = work) -> None:
                phi = self._parameters(work, one).permute(2, 0, 1).contiguous()
                out = work[one.out : one.out + one.rows]
                x, ladj = self.univariate(phi).inv.call_and_ladj(out.t())
                out.copy_(x.t())
                work[one.offset].add_(ladj.sum(dim=1))

            self._run(self.plan.inverse, work, weights, {Code.INVERT: invert})
            x[part], ladj[part] = work[:features].t(), work[self.plan.ladj]
        return x, ladj, work if kept else None

    def solve(
        self, weights: Sequence[Tensor], memory: Any, g: Tensor, slope_x: Tensor, slope_phi: Tensor
    ) -> Tensor:
        """Solves J^T v = g, all in rows, given the derivatives of z by x and by the parameters."""
        layout, features = self.plan.layout, self.plan.features
        with torch.enable_grad():
            total = memory.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(self.conditioner.activation(total).sum(), total)
        work = g.new_zeros(layout.end + 1, len(g))
        work[:features] = g.t()
        work[layout.sums[-1] : layout.end] = slope_phi.t()
        steep = slope_x.t()

        def pass_down(one: Operation) -> None:
            slope = slopes[one.columns : one.columns + one.rows]
            source = work[one.source : one.source + one.rows]
            torch.mul(source, slope, out=work[one.out : one.out + one.rows])

        def solve(one: Operation) -> None:
            out = work[one.out : one.out + one.rows]
            out.div_(steep[one.out : one.out + one.rows])
            self._parameters(work, one).mul_(-out[:, None])

        self._run(self.plan.reverse, work, weights, {Code.SLOPE: pass_down, Code.SOLVE: solve})
        return work[:features].t()

    @staticmethod
    def _parameters(work: Tensor, one: Operation) -> Tensor:
        """The parameters of an operation's features, with shape (features, parameters, samples)."""
        return work[one.layer : one.layer + one.rows * one.columns].view(one.rows, one.columns, -1)

    def _run(
        self,
        program: Program,
        work: Tensor,
        weights: Sequence[Tensor],
        maps: dict[Code, Callable[[Operation], None]],
    ) -> None:
        """Runs a program: what the kernel does, in torch."""
        stairs = self.plan.layout.stairs
        for stair, weight in zip(stairs, weights, strict=True):
            stair.weights(weight)  # writes the zeros of the mask
        packed = [weight.detach() for weight in weights]
        for one in program.operations:
            out, source = work[one.out : one.out + one.rows], one.source
            match one.code:
                case Code.PRODUCT:
                    weight = packed[one.layer].as_strided(
                        (one.rows, one.columns), (one.row_step, one.column_step), one.offset
                    )
                    out.addmm_(weight, work[source : source + one.columns])
                case Code.FILL:
                    pass  # work begins with zeros where a program wants them
                case Code.ACTIVATE:
                    out.copy_(self.conditioner.activation(work[source : source + one.rows]))
                case Code.ADD:
                    out.add_(work[source : source + one.rows])
                case _:
                    maps[one.code](one)
