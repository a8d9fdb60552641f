"""One flow of the battery: how a case builds it, and which promises it does not make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

import maskedflow as mf
from strategies import Case

#: What a flow promises unless its entry says otherwise.
#:
#: - ``inverse``: its distribution has an invertible `transform`, and samples with gradients
#: - ``functional inverse``: the inverse works under torch.func's transforms, too
#: - ``second derivative``: its log-density has one
#: - ``identity``: it starts near the identity
#: - ``order``: its autoregressive steps follow the case's order and passes
#: - ``line``: its density is on all real vectors
Promise = Literal["inverse", "functional inverse", "second derivative", "identity", "order", "line"]

#: The options of a `Case`.
OPTIONS = frozenset(Case().options)


@dataclass(frozen=True)
class Entry:
    """A flow, and what may be asked of it.

    Args:
        kind: Its name in `maskedflow.flows`.
        options: The keyword arguments that it is always built with.
        takes: The options of a case that it takes.
        lacks: The promises that it does not make.
        circular: Whether its features are angles.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    takes: frozenset[str] = OPTIONS
    lacks: frozenset[Promise] = frozenset()
    circular: bool = False

    def __call__(self, case: Case, noise: float = 0.3, **more: Any) -> mf.flows.Flow:
        """Builds the flow of a case, in evaluation mode."""
        flow = case.build(
            getattr(mf.flows, self.kind), noise, self.takes, **{**self.options, **more}
        )
        for module in flow.modules():
            if isinstance(module, mf.transforms.BatchNorm) and noise:
                mean, deviation = case.draw(2, case.features, seed=3)
                module.set_statistics(mean, deviation.exp())
        return flow.eval()

    def x(self, case: Case, *batch: int) -> Tensor:
        """A batch of features on which the density is positive."""
        x = case.x(*batch)
        return (x + math.pi).remainder(2 * math.pi) - math.pi if self.circular else x
