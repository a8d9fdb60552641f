"""What one does with posteriors: marginals, information, evidence, other priors, two at once."""

from .combine import Product, Tension, combine, tension
from .evidence import Evidence, harmonic_evidence, importance_evidence
from .information import Information, information
from .named import HeldOut, NamedDensity
from .partial import Conditional, conditional, marginal
from .reweight import WeightedSample, reweight
from .weights import psis

__all__ = [
    "Conditional",
    "Evidence",
    "HeldOut",
    "Information",
    "NamedDensity",
    "Product",
    "Tension",
    "WeightedSample",
    "combine",
    "conditional",
    "harmonic_evidence",
    "importance_evidence",
    "information",
    "marginal",
    "psis",
    "reweight",
    "tension",
]
