"""Flows: short constructors of transforms and a base."""

from maskedflow.transforms.lazy import (
    LazyComposedTransform,
    LazyInverse,
    LazyTransform,
    UnconditionalTransform,
)

from .autoregressive import MADE, MAF, MaskedAutoregressiveTransform
from .coupling import NICE, GeneralCouplingTransform, RealNVP
from .flow import Flow, LazyDistribution, UnconditionalDistribution
from .iaf import IAF

#: The coupling layer's short name.
CouplingTransform = GeneralCouplingTransform

__all__ = [
    "IAF",
    "MADE",
    "MAF",
    "NICE",
    "CouplingTransform",
    "Flow",
    "GeneralCouplingTransform",
    "LazyComposedTransform",
    "LazyDistribution",
    "LazyInverse",
    "LazyTransform",
    "MaskedAutoregressiveTransform",
    "RealNVP",
    "UnconditionalDistribution",
    "UnconditionalTransform",
]
