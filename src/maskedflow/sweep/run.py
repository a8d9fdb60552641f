"""Runs the programs of a sweep: by the compiled kernel, or in torch operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from maskedflow.kernels import Kernel
from maskedflow.nn import MaskedMLP
from maskedflow.staircase import Code, Program

from .plan import Plan

#: The bytes of numbers that a batch may have, so that they stay in a cache.
CACHE_BYTES = 2**24

#: Makes the map z = f(x) of some features from their parameters (*, features, parameters).
Univariate = Callable[[Tensor], Any]


class CompiledSweep:
    """Runs programs on panels of samples: on a CPU, with common activations and univariate maps.

    A gradient can follow the programs of the plan that is kept.
    """

    def __init__(self, conditioner: MaskedMLP, kept: Plan, transient: Plan, kernel: Kernel) -> None:
        self.trunk = conditioner.trunk
        self.kept, self.transient, self.kernel = kept, transient, kernel

    def inverse(
        self, z: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, kept: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Any]:
        """Maps rows z to x, the ladj, the outputs, and what a gradient needs, if that is kept."""
        from maskedflow.kernels.job import Panels, run_panels

        plan = self.kept if kept else self.transient
        layout = plan.layout
        x, ladj = z.new_empty(z.shape), z.new_empty(len(z), 1)
        stores = [(x, 0, layout.features), (ladj, layout.height, 1)]
        phi = z.new_empty(len(z), layout.widths[-1]) if kept else None
        if phi is not None:
            stores.append((phi, layout.sums[-1], layout.widths[-1]))
        panels = Panels(
            len(z), layout.height + 1, z, kept=kept, memory=None if kept else "evaluation"
        )
        run_panels(
            plan.inverse,
            panels,
            weights,
            loads=[(z, 0)],
            fills=[*layout.fills(biases), (layout.height, 1, None, None)],
            stores=stores,
            activation=self.trunk.code or (0, 0.0),
            univariate=self.kernel,
            parameters=plan.parameters,
            ladj=layout.height,
        )
        return x, ladj[:, 0], phi, panels if kept else None

    def solve(
        self, weights: Sequence[Tensor], memory: Any, g: Tensor, slope_x: Tensor, slope_phi: Tensor
    ) -> Tensor:
        """Solves J^T v = g, all in rows."""
        from maskedflow.kernels.job import Panels, run_panels

        layout = self.kept.layout
        v = g.new_empty(g.shape)
        run_panels(
            self.kept.reverse,
            Panels(len(g), layout.height + 2 * layout.features, g, kept=False, memory="evaluation"),
            weights,
            loads=[
                (slope_phi, layout.sums[-1]),
                (g, layout.height),
                (slope_x, layout.height + layout.features),
            ],
            fills=[(0, layout.sums[-1], None, None)],
            stores=[(v, layout.height, layout.features)],
            other=memory,
            activation=self.trunk.code or (0, 0.0),
            parameters=self.kept.parameters,
        )
        return v


class InterpretedSweep:
    """Runs programs on a matrix, a column a sample, on any device; sums have rows of their own."""

    def __init__(self, conditioner: MaskedMLP, plan: Plan, univariate: Univariate) -> None:
        self.conditioner, self.plan, self.univariate = conditioner, plan, univariate

    def inverse(
        self, z: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, kept: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Any]:
        """Maps rows z to x, the ladj, the outputs, and what a gradient needs, if that is kept."""
        layout = self.plan.layout
        size = layout.height * z.element_size()
        most = len(z) if kept else max(64, CACHE_BYTES // size)
        x, ladj = z.new_empty(z.shape), z.new_empty(len(z))
        work = z.new_empty(layout.height + 1, 0)
        for start in range(0, len(z), max(most, 1)):
            part = slice(start, start + most)
            work = z.new_zeros(layout.height + 1, len(z[part]))
            work[: layout.features] = z[part].t()
            for row, width, bias, added in self.plan.layout.fills(biases):
                if bias is not None:
                    work[row : row + width] = bias[:, None]
                elif added is not None:
                    work[row : row + width] = added[part].t()
            self._run(self.plan.inverse, work, weights)
            x[part], ladj[part] = work[: layout.features].t(), work[-1]
        return x, ladj, None, work if kept else None

    def solve(
        self, weights: Sequence[Tensor], memory: Any, g: Tensor, slope_x: Tensor, slope_phi: Tensor
    ) -> Tensor:
        """Solves J^T v = g, all in rows."""
        layout = self.plan.layout
        with torch.enable_grad():
            total = memory.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(self.conditioner.activation(total).sum(), total)
        above = g.new_zeros(layout.sums[-1], len(g))
        work = torch.cat([above, slope_phi.t(), g.t(), slope_x.t()])
        self._run(self.plan.reverse, work, weights, slopes)
        return work[layout.height : layout.height + layout.features].t()

    def _run(
        self,
        program: Program,
        work: Tensor,
        weights: Sequence[Tensor],
        slopes: Tensor | None = None,
    ) -> None:
        """Runs a program: what `kernels.run` does, in torch."""
        stairs = self.plan.layout.stairs
        for stair, weight in zip(stairs, weights, strict=True):
            stair.weights(weight)  # writes the zeros of the mask
        packed = [weight.detach() for weight in weights]
        parameters = self.plan.parameters
        for one in program.operations:
            out, source = work[one.out : one.out + one.rows], one.source
            match one.code:
                case Code.PRODUCT:
                    weight = packed[one.layer].as_strided(
                        (one.rows, one.columns), (one.row_step, one.column_step), one.offset
                    )
                    out.addmm_(weight, work[source : source + one.columns])
                case Code.ACTIVATE:
                    out.copy_(self.conditioner.activation(work[source : source + one.rows]))
                case Code.ADD:
                    out.add_(work[source : source + one.rows])
                case Code.INVERT:
                    phi = work[source : source + one.rows * parameters]
                    phi = phi.view(one.rows, parameters, -1).permute(2, 0, 1).contiguous()
                    x, ladj = self.univariate(phi).inv.call_and_ladj(out.t())
                    out.copy_(x.t())
                    work[-1].add_(ladj.sum(dim=1))
                case Code.SLOPE:
                    assert slopes is not None
                    slope = slopes[one.columns : one.columns + one.rows]
                    torch.mul(work[source : source + one.rows], slope, out=out)
                case Code.SOLVE:
                    out.sub_(work[source : source + one.rows])
                    out.div_(work[one.columns : one.columns + one.rows])
                    phi = work[one.layer : one.layer + one.rows * parameters]
                    phi.view(one.rows, parameters, -1).mul_(out[:, None])
