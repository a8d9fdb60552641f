"""The steps inside of a block in torch operations: any device, dtype, activation and map."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from torch import Tensor, nn

from .engine import Sweep
from .plan import Block, Plan

__all__ = ["TorchForward", "torch_reverse"]

#: Inverts the maps of some features: z (features, batch) and parameters (features, parameters,
#: batch) to x and the ladj of the inverse of each.
Invert = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _own(plan: Plan, block: Block, start: int, end: int) -> slice:
    """Where the features `start` to `end` of a block, in sweep order, are among all features."""
    low, high = block.pieces[0].inside
    return slice(high - end, high - start) if plan.descending else slice(low + start, low + end)


class TorchForward:
    """Goes through the generations of a block one by one.

    Args:
        activation: The activation.
        invert: Inverts the maps of some features.
    """

    def __init__(self, activation: nn.Module, invert: Invert) -> None:
        self.activation = activation
        self.invert = invert

    def __call__(self, sweep: Sweep, number: int, sums: Tensor) -> None:
        plan, inside = sweep.plan, sweep.weights.inside[number]
        block, outputs = plan.blocks[number], len(plan.edges)
        counts = block.counts.tolist()
        tops = _tops(block)
        for now in range(1, len(counts[0])):
            start, end = counts[0][now - 1], counts[0][now]
            own = _own(plan, block, start, end)
            rows = _output_rows(plan, block, start, end)
            phi = sums[tops[outputs] + rows.start : tops[outputs] + rows.stop]
            known = counts[outputs][now - 1]
            if known:
                phi = phi.addmm(inside[outputs][rows, :known], _known(sweep, block, outputs, known))
            x, ladj = self.invert(sweep.z[own], phi.view(end - start, plan.parameters, -1))
            sweep.x[own] = x
            sweep.ladj += ladj.sum(dim=0)
            for level in range(outputs):
                first, last = counts[level + 1][now - 1], counts[level + 1][now]
                known = counts[level][now]
                total = sums[tops[level] + first : tops[level] + last]
                if first == last:
                    continue
                if known:
                    total.addmm_(
                        inside[level][first:last, :known], _known(sweep, block, level, known)
                    )
                if level in plan.skips:
                    total += sums[tops[level - 2] + first : tops[level - 2] + last]
                base = plan.edges[level][block.first]
                sweep.level(level + 1)[base + first : base + last] = self.activation(total)


def torch_reverse(sweep: Sweep, number: int) -> None:
    """Goes back through the generations of a block one by one."""
    plan, block = sweep.plan, sweep.plan.blocks[number]
    counts = block.counts.tolist()
    for now in range(len(counts[0]) - 1, 0, -1):
        for level in range(len(plan.edges), 0, -1):
            first, last = counts[level][now - 1], counts[level][now]
            if first == last:
                continue
            base = plan.edges[level - 1][block.first]
            rows = slice(base + first, base + last)
            adjoint = sweep.level(level)[rows]
            _gather(adjoint, sweep, number, level, first, last, counts, now)
            start = sweep.starts[level - 1]
            adjoint *= sweep.slope_hidden[start + rows.start : start + rows.stop]
            if level + 1 in plan.skips:
                adjoint += sweep.level(level + 2)[rows]
        first, last = counts[0][now - 1], counts[0][now]
        own = _own(plan, block, first, last)
        adjoint = sweep.x[own].flip(0) if plan.descending else sweep.x[own]
        _gather(adjoint, sweep, number, 0, first, last, counts, now)
        if plan.descending:
            adjoint = adjoint.flip(0)
        sweep.z[own] = (sweep.z[own] - adjoint) / sweep.slope_x[own]
        phi = sweep.slope_phi[own.start * plan.parameters : own.stop * plan.parameters]
        phi.view(last - first, plan.parameters, -1).mul_(sweep.z[own, None])


def _gather(
    adjoint: Tensor,
    sweep: Sweep,
    number: int,
    level: int,
    first: int,
    last: int,
    counts: list[list[int]],
    now: int,
) -> None:
    """Adds what the block's later rows of layer `level` pass down to its columns."""
    plan, block = sweep.plan, sweep.plan.blocks[number]
    weight = sweep.weights.inside[number][level]
    if level == len(plan.edges):
        rows = _output_rows(plan, block, counts[0][now], counts[0][-1])
        base = block.pieces[level].rows[0]
        above = sweep.slope_phi
    else:
        rows = slice(counts[level + 1][now - 1], counts[level + 1][-1])
        base = plan.edges[level][block.first]
        above = sweep.level(level + 1)
    if rows.start < rows.stop:
        adjoint.addmm_(weight[rows, first:last].t(), above[base + rows.start : base + rows.stop])


def _known(sweep: Sweep, block: Block, level: int, count: int) -> Tensor:
    """The first `count` rows that a block knows of what a layer reads, in sweep order."""
    if level > 0:
        base = sweep.plan.edges[level - 1][block.first]
        return sweep.level(level)[base : base + count]
    known = sweep.x[_own(sweep.plan, block, 0, count)]
    return known.flip(0) if sweep.plan.descending else known


def _output_rows(plan: Plan, block: Block, start: int, end: int) -> slice:
    """The block's output rows of the features `start` to `end` in sweep order."""
    own, low = _own(plan, block, start, end), block.pieces[0].inside[0]
    return slice((own.start - low) * plan.parameters, (own.stop - low) * plan.parameters)


def _tops(block: Block) -> list[int]:
    """The first row of each layer among a block's rows."""
    return [0, *accumulate(piece.height for piece in block.pieces[:-1])]
