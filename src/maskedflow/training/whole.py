"""Training steps of a flow that is one program: many in a call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from maskedflow.chain import Descent, is_watched
from maskedflow.data import Split
from maskedflow.flows import Flow
from maskedflow.transforms import ActNorm, LazyTransform

from .batches import Training, take
from .config import TrainConfig
from .distributed import GradientSum, Ranks


class WholeSteps:
    """Takes steps without Python, of a flow whose learned part is one program.

    What comes before that part, preprocessing without parameters, goes through torch: once for all
    rows where it is fixed, and for each batch where it draws noise.
    """

    def __init__(
        self,
        flow: Flow,
        front: list[LazyTransform],
        descent: Descent,
        train: Training,
        like: Tensor,
        ranks: Ranks,
    ) -> None:
        self._ranks = ranks
        self._flow, self._front, self._descent = flow, front, descent
        self._train, self._like = train, like
        fixed = all(one.is_fixed for one in front)
        #: Whether many steps can be taken in a call.
        self.many = fixed and isinstance(train, Split)

    @classmethod
    def of(
        cls,
        flow: nn.Module,
        optimizer: torch.optim.Adam,
        train: Training,
        config: TrainConfig,
        like: Tensor,
        rows: int,
        ranks: Ranks,
        gradients: GradientSum | None,
    ) -> WholeSteps | None:
        """The steps of a flow; None if a part that is learned is not in the program.

        A step takes so many `rows` at most in this process, of `ranks` that add up `gradients`.
        """
        if not isinstance(flow, Flow) or type(flow).forward is not Flow.forward:
            return None
        if config.compile or config.recompute or any(map(is_watched, flow.modules())):
            return None
        embedding = flow.embedding
        if embedding is not None and not getattr(embedding, "is_fixed", False):
            return None
        front, chain = flow.parts()
        if chain is None or not chain.is_computable:
            return None
        learned = {id(one) for one in optimizer.param_groups[0]["params"]}
        found = [id(held[name]) for held, name in chain.owners]
        if len(set(found)) < len(found) or not learned <= set(found):
            return None
        shared = None if gradients is None else (gradients.vector, gradients.sum_)
        descent = Descent(chain, optimizer, config.clip, rows, shared)
        return cls(flow, front, descent, train, like, ranks)

    def release(self) -> None:
        """Gives the flow's parameters memory of their own again."""
        self._descent.release()

    def take(
        self, order: Tensor, bounds: Sequence[tuple[int, int]], rates: Sequence[float]
    ) -> tuple[list[float], list[float]]:
        """Steps on rows of the training data in an order; their losses, and gradients' norms."""
        x, c, ladj, weight = self._rows
        shares = [(*self._ranks.share(start, end), end - start) for start, end in bounds]
        losses, norms = self._descent.take(x, c, order, shares, rates, weight)
        if ladj is not None:
            taken = bounds[: len(losses)]
            rows = ladj[order[taken[0][0] : taken[-1][1]]].double()
            means = (part.mean() for part in rows.split([end - start for start, end in taken]))
            losses = [loss - float(mean) for loss, mean in zip(losses, means, strict=True)]
        return losses, norms

    def take_one(self, batch: Split, rate: float, count: int) -> tuple[float, float]:
        """A step on rows of a batch of so many; its loss, and its gradient's norm."""
        x, c, ladj, weight = self._prepared(batch)
        (loss,), (norm,) = self._descent.take(x, c, None, [(0, len(x), count)], [rate], weight)
        if ladj is not None:
            loss -= self._ranks.total(float(ladj.double().sum())) / count
        return loss, norm

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        return self._prepared(cast(Split, self._train))

    @torch.no_grad()
    def _prepared(self, split: Split) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Rows as the program takes them, what its total lacks, times their weights, and these."""
        x, c = take(split, slice(None), self._like)
        if c is not None and self._flow.embedding is not None:
            c = self._flow.embedding(c)
        x, ladj = self._flow.through(self._front, x, c)
        x, weight = x.contiguous(), split.weight
        if weight is not None:
            weight = weight.to(x)
            ladj = None if ladj is None else weight * ladj
        return x, None if c is None else c.contiguous(), ladj, weight


def awaits_batch(flow: nn.Module) -> bool:
    """Whether a first batch is still to set some of its parameters."""
    return any(isinstance(one, ActNorm) and not one.initialized for one in flow.modules())
