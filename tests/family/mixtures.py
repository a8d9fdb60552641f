"""Mixtures: as conditionals, as bases, and the heavy tails of Student's t."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import maskedflow as mf
from strategies import Case

from .entry import OPTIONS, Entry

Base = Callable[[Case], mf.flows.LazyDistribution]


@dataclass(frozen=True)
class Based(Entry):
    """A flow with a base that is made for the case."""

    base: Base | None = None

    def __call__(self, case: Case, noise: float = 0.3, **more: Any) -> mf.flows.Flow:
        assert self.base is not None
        return super().__call__(case, noise, base=self.base(case), **more)


def named(name: str, conditional: bool = False, **options: Any) -> Base:
    def make(case: Case) -> mf.flows.LazyDistribution:
        extra: Mapping[str, Any] = options
        if name in ("mixture", "made"):
            extra = {**options, "generator": torch.Generator().manual_seed(case.seed)}
        if conditional:
            extra = {**extra, "context": case.context}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return mf.flows.base(name, case.features, **extra)

    return make


MIXED = {"components": 3}
NO_IDENTITY = frozenset({"identity"})

FLOWS: dict[str, Entry] = {
    "MADE, mixtures": Entry("MADE", MIXED, OPTIONS - {"transforms"}, lacks=NO_IDENTITY),
    "MAF, mixture base": Based(
        "MAF", base=named("mixture", True, components=3, hidden_features=(8,))
    ),
    "MAF, full mixture base": Based("MAF", base=named("mixture", covariance_type="full")),
    "MAF, Student-t base": Based("MAF", base=named("student-t", df=8.0, learnable=False)),
    "MAF MoG": Based(
        "MAF",
        base=named("made", True, components=2, hidden_features=(8,), activation=torch.nn.Tanh),
        lacks=frozenset({"order"}),
    ),
}
