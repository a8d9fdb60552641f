"""Inference by simulation: posteriors of a simulator's parameters, from what it makes of them."""

from .npe import NPE
from .posterior import DirectPosterior, Posterior
from .prior import Prior
from .truncated import TruncatedPrior

__all__ = ["NPE", "DirectPosterior", "Posterior", "Prior", "TruncatedPrior"]
