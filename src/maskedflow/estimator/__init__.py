"""Tables as they are, in the manner of scikit-learn."""

from .estimator import DensityEstimator
from .queries import ConditionalScore

__all__ = ["ConditionalScore", "DensityEstimator"]
