"""Tables as they are, in the manner of scikit-learn."""

from .estimator import DensityEstimator

__all__ = ["DensityEstimator"]
