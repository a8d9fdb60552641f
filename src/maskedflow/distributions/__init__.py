"""The distribution of a flow, bases, mixtures, and distributions that are bounded or sorted."""

from .bounded import BoxUniform, TransformedUniform, Truncated
from .chained import ChainedFlow as ChainedFlow
from .density import Density as Density
from .density import refuse_nan as refuse_nan
from .elementwise import DiagNormal, GeneralizedNormal, StudentT
from .flow import NormalizingFlow
from .mixtures import Joint, Mixture, MixtureOfGaussians
from .ordered import Maximum, Minimum, Sort, TopK
from .region import HighestDensity

__all__ = [
    "BoxUniform",
    "DiagNormal",
    "GeneralizedNormal",
    "HighestDensity",
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
