"""Flows: short constructors of transforms and a base."""

from maskedflow.transforms.lazy import (
    LazyComposedTransform,
    LazyInverse,
    LazyTransform,
    UnconditionalTransform,
)

from .autoregressive import MADE, MAF, MaskedAutoregressiveTransform
from .bases import base
from .convolutional import ConvCouplingTransform
from .coupling import NICE, GeneralCouplingTransform, RealNVP
from .elementwise import ElementWiseTransform
from .flow import Flow, LazyDistribution, UnconditionalDistribution
from .gaussianization import GF
from .glow import Glow
from .iaf import IAF
from .mixtures import GMM
from .neural import MNN, NAF, UMNN, UNAF
from .polynomial import BPF, SOSPF
from .spline import NCSF, NSF
from .temporal import TemporalDistribution, TemporalMAF

#: The coupling layer's short name.
CouplingTransform = GeneralCouplingTransform

__all__ = [
    "BPF",
    "GF",
    "GMM",
    "IAF",
    "MADE",
    "MAF",
    "MNN",
    "NAF",
    "NCSF",
    "NICE",
    "NSF",
    "SOSPF",
    "UMNN",
    "UNAF",
    "ConvCouplingTransform",
    "CouplingTransform",
    "ElementWiseTransform",
    "Flow",
    "GeneralCouplingTransform",
    "Glow",
    "LazyComposedTransform",
    "LazyDistribution",
    "LazyInverse",
    "LazyTransform",
    "MaskedAutoregressiveTransform",
    "RealNVP",
    "TemporalDistribution",
    "TemporalMAF",
    "UnconditionalDistribution",
    "UnconditionalTransform",
    "base",
]
