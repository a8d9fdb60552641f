"""The sweep by the compiled kernel: CPU, common activations and univariate maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from maskedflow.kernels import Kernel
from maskedflow.nn import MaskedMLP

from .plan import Plan


class CompiledSweep:
    """Runs programs on panels of samples; a gradient can follow those of the plan that is kept."""

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

    def outputs(
        self,
        x: Tensor,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        phi: Tensor | None,
        memory: Any,
    ) -> Tensor:
        """The outputs again, with a graph."""
        return self.trunk.with_gradient(x, weights, biases, phi, memory)

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
