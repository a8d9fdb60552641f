"""Inference: from a simulator or a chain to a posterior, and what one asks of it then."""

from .calibration import Ranks, sbc
from .chains import Chains
from .coverage import Coverage, expected_coverage, tarp
from .mcmc import flow_metropolis, hmc
from .npe import NPE
from .posterior import DirectPosterior, Posterior
from .predictive import PredictiveCheck, predictive_check
from .prior import Prior
from .truncated import TruncatedPrior

__all__ = [
    "NPE",
    "Chains",
    "Coverage",
    "DirectPosterior",
    "Posterior",
    "PredictiveCheck",
    "Prior",
    "Ranks",
    "TruncatedPrior",
    "expected_coverage",
    "flow_metropolis",
    "hmc",
    "predictive_check",
    "sbc",
    "tarp",
]
