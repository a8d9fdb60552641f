"""Transforms that are computed as one program."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.chain import Chain

from .base import VectorTransform, call_and_ladj


class ChainedTransform(VectorTransform):
    """What a chain makes of the context, in place of the `plain` transform that does the same.

    A function makes the latter for any context.
    """

    def __init__(
        self,
        chain: Chain,
        c: Tensor | None,
        plain: TorchTransform,
        make: Callable[[Tensor | None], TorchTransform],
    ) -> None:
        super().__init__()
        self.chain, self.plain, self._make = chain, plain, make
        self.c = c if chain.context else None

    def __repr__(self) -> str:
        return repr(self.plain)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.chain.vectors(x, self.c)
        if vectors is None:
            return call_and_ladj(self.plain, x)
        return self.chain(x, self.c, vectors, self._again)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.chain.vectors(y, self.c)
        if vectors is None:
            return call_and_ladj(self.plain.inv, y)
        return self.chain(y, self.c, vectors, self._again, inverse=True)

    def _again(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        return call_and_ladj(self._make(c), x)
