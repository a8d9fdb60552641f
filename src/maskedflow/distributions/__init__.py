"""The distribution of a flow, and bases."""

from .bounded import BoxUniform, TransformedUniform, Truncated
from .elementwise import DiagNormal, GeneralizedNormal, StudentT
from .flow import NormalizingFlow
from .flow import refuse_nan as refuse_nan
from .gaussians import MixtureOfGaussians
from .joint import Joint
from .mixtures import Mixture
from .ordered import Maximum, Minimum, Sort, TopK

__all__ = [
    "BoxUniform",
    "DiagNormal",
    "GeneralizedNormal",
    "Joint",
    "Maximum",
    "Minimum",
    "Mixture",
    "MixtureOfGaussians",
    "NormalizingFlow",
    "Sort",
    "StudentT",
    "TopK",
    "TransformedUniform",
    "Truncated",
]
