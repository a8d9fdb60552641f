"""Flows: short constructors of transforms and a base."""

# Not public here, but code for earlier versions of zuko looks for lazy transforms in this place.
from maskedflow.transforms.lazy import LazyComposedTransform as LazyComposedTransform
from maskedflow.transforms.lazy import LazyInverse as LazyInverse
from maskedflow.transforms.lazy import LazyTransform as LazyTransform
from maskedflow.transforms.lazy import UnconditionalTransform as UnconditionalTransform

from .autoregressive import IAF, MADE, MAF, MaskedAutoregressiveTransform
from .bases import base
from .convolutional import ConvCouplingTransform
from .coupling import NICE, GeneralCouplingTransform, RealNVP
from .elementwise import GF, ElementWiseTransform
from .flow import Flow, LazyDistribution, UnconditionalDistribution
from .glow import Glow
from .mixtures import GMM
from .neural import MNN, NAF, UMNN, UNAF
from .polynomial import BPF, SOSPF
from .spline import NCSF, NSF
from .temporal import TemporalDistribution, TemporalMAF

#: The short name, which `transforms` has for what it makes: importable, but not public twice.
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
    "ElementWiseTransform",
    "Flow",
    "GeneralCouplingTransform",
    "Glow",
    "LazyDistribution",
    "MaskedAutoregressiveTransform",
    "RealNVP",
    "TemporalDistribution",
    "TemporalMAF",
    "UnconditionalDistribution",
    "base",
]
