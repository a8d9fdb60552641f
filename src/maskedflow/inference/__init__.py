"""Posteriors of simulators, and whether they can be trusted."""

from .calibration import Ranks, sbc
from .coverage import Coverage, expected_coverage, tarp
from .predictive import PredictiveCheck, predictive_check

__all__ = [
    "Coverage",
    "PredictiveCheck",
    "Ranks",
    "expected_coverage",
    "predictive_check",
    "sbc",
    "tarp",
]
