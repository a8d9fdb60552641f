"""Transforms whose intermediate numbers are computed again for gradients instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform as TorchTransform
from torch.utils.checkpoint import checkpoint

from .base import Transform, call_and_ladj

Make = Callable[[Tensor | None], TorchTransform]
"""Makes a transform, given a context."""

_RECOMPUTES: ContextVar[bool] = ContextVar("recomputes", default=False)


@contextmanager
def recomputing(recomputes: bool = True) -> Iterator[None]:
    """Has flows keep what is between two transforms only, and compute the rest again for gradients.

    This is activation (or gradient) checkpointing: memory for one transform at a time, at the price
    of another evaluation of each. It is for `backward()` of a log-density.

    Args:
        recomputes: Whether they do.

    References:
        Training Deep Nets with Sublinear Memory Cost (Chen et al., 2016)
        https://arxiv.org/abs/1604.06174

    Example:
        >>> from maskedflow.flows import MAF
        >>> flow, x = MAF(3), torch.randn(5, 3)
        >>> with recomputing():
        ...     flow().log_prob(x).sum().backward()
    """
    token = _RECOMPUTES.set(recomputes)
    try:
        yield
    finally:
        _RECOMPUTES.reset(token)


def is_recomputing() -> bool:
    """Whether gradients are wanted, and intermediate numbers are to be computed again for them."""
    return _RECOMPUTES.get() and torch.is_grad_enabled()


class RecomputedTransform(Transform):
    """A transform that is made, and evaluated, again when its gradients are wanted."""

    def __init__(self, make: Make, c: Tensor | None, made: TorchTransform) -> None:
        super().__init__()
        self._make, self._c, self._made = make, c, made

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return self._made.domain

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return self._made.codomain

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return self._made.bijective

    @property
    def inv(self) -> TorchTransform:
        return self._made.inv

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # A batch's weights are those of now, not of the moment when gradients are computed.
        context, make = copy_context(), self._make

        def evaluate(x: Tensor, c: Tensor | None, _: Tensor) -> tuple[Tensor, Tensor]:
            return context.run(lambda: call_and_ladj(make(c), x))

        # The reentrant kind evaluates without a graph at first, so that the kernel keeps nothing;
        # it asks for an input that has a gradient.
        anchor = torch.zeros((), requires_grad=True)
        found: tuple[Tensor, Tensor] = checkpoint(evaluate, x, self._c, anchor, use_reentrant=True)
        return found
