"""Flows: short constructors of transforms and a base."""

from .autoregressive import MADE, MAF, MaskedAutoregressiveTransform
from .flow import Flow, LazyDistribution, UnconditionalDistribution

__all__ = [
    "MADE",
    "MAF",
    "Flow",
    "LazyDistribution",
    "MaskedAutoregressiveTransform",
    "UnconditionalDistribution",
]
