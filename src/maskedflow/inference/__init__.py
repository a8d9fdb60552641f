"""Inference by simulation: posteriors of a simulator's parameters, and whether to trust them."""

from .calibration import Ranks, sbc
from .coverage import Coverage, expected_coverage, tarp
from .likelihood import LikelihoodPosterior
from .nle import NLE
from .npe import NPE
from .posterior import DirectPosterior, Posterior
from .predictive import PredictiveCheck, predictive_check
from .prior import Prior
from .truncated import TruncatedPrior

__all__ = [
    "NLE",
    "NPE",
    "Coverage",
    "DirectPosterior",
    "LikelihoodPosterior",
    "Posterior",
    "PredictiveCheck",
    "Prior",
    "Ranks",
    "TruncatedPrior",
    "expected_coverage",
    "predictive_check",
    "sbc",
    "tarp",
]
