"""Inference by simulation: posteriors of a simulator's parameters, from what it makes of them."""

from .likelihood import LikelihoodPosterior
from .nle import NLE
from .npe import NPE
from .posterior import DirectPosterior, Posterior
from .prior import Prior
from .truncated import TruncatedPrior

__all__ = [
    "NLE",
    "NPE",
    "DirectPosterior",
    "LikelihoodPosterior",
    "Posterior",
    "Prior",
    "TruncatedPrior",
]
