"""Flows: short constructors of transforms and a base."""

from .autoregressive import MADE, MAF, MaskedAutoregressiveTransform
from .bases import base
from .flow import Flow, LazyDistribution, UnconditionalDistribution
from .mixtures import GMM

__all__ = [
    "GMM",
    "MADE",
    "MAF",
    "Flow",
    "LazyDistribution",
    "MaskedAutoregressiveTransform",
    "UnconditionalDistribution",
    "base",
]
