"""Inference: from a simulator or a chain to a posterior, and what one asks of it then."""

from .calibration import Ranks, sbc
from .chains import Chains
from .combine import Product, Tension, combine, tension
from .coverage import Coverage, expected_coverage, tarp
from .evidence import Evidence, harmonic_evidence, importance_evidence
from .information import Information, information
from .likelihood import LikelihoodPosterior
from .mcmc import flow_metropolis, hmc
from .named import HeldOut, NamedDensity
from .nle import NLE
from .npe import NPE
from .partial import Conditional, conditional, marginal
from .posterior import DirectPosterior, Posterior
from .predictive import PredictiveCheck, predictive_check
from .prior import Prior
from .reweight import WeightedSample, reweight
from .truncated import TruncatedPrior
from .weights import psis

__all__ = [
    "NLE",
    "NPE",
    "Chains",
    "Conditional",
    "Coverage",
    "DirectPosterior",
    "Evidence",
    "HeldOut",
    "Information",
    "LikelihoodPosterior",
    "NamedDensity",
    "Posterior",
    "PredictiveCheck",
    "Prior",
    "Product",
    "Ranks",
    "Tension",
    "TruncatedPrior",
    "WeightedSample",
    "combine",
    "conditional",
    "expected_coverage",
    "flow_metropolis",
    "harmonic_evidence",
    "hmc",
    "importance_evidence",
    "information",
    "marginal",
    "predictive_check",
    "psis",
    "reweight",
    "sbc",
    "tarp",
    "tension",
]
