"""Inference: from a simulator or a chain to a posterior, and what one asks of it then."""

from .calibration import Ranks, sbc
from .coverage import Coverage, expected_coverage, tarp
from .npe import NPE
from .posterior import DirectPosterior, Posterior
from .predictive import PredictiveCheck, predictive_check
from .prior import Prior
from .truncated import TruncatedPrior

__all__ = [
    "NPE",
    "Coverage",
    "DirectPosterior",
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
