"""Invertible maps and their log-determinants."""

from torch.distributions.transforms import ExpTransform, SigmoidTransform, TanhTransform

from .autoregressive import AutoregressiveTransform
from .base import (
    ComposedTransform,
    DependentTransform,
    IdentityTransform,
    Transform,
    call_and_ladj,
    check_features,
)
from .bernstein import BernsteinTransform, BoundedBernsteinTransform
from .elementary import (
    CircularShiftTransform,
    CosTransform,
    SignedPowerTransform,
    SinTransform,
    SoftclipTransform,
)
from .gaussianization import GaussianizationTransform
from .integral import SOSPolynomialTransform, UnconstrainedMonotonicTransform
from .lazy import LazyComposedTransform, LazyInverse, LazyTransform, UnconditionalTransform
from .monotonic import MonotonicTransform
from .normalization import BatchNorm
from .permutation import PermutationTransform
from .preprocessing import Dequantize, Logit, LogitTransform, ScaleTransform, Standardize
from .spline import MonotonicRQSTransform
from .univariate import AdditiveTransform, MonotonicAffineTransform

__all__ = [
    "AdditiveTransform",
    "AutoregressiveTransform",
    "BatchNorm",
    "BernsteinTransform",
    "BoundedBernsteinTransform",
    "CircularShiftTransform",
    "ComposedTransform",
    "CosTransform",
    "DependentTransform",
    "Dequantize",
    "ExpTransform",
    "GaussianizationTransform",
    "IdentityTransform",
    "LazyComposedTransform",
    "LazyInverse",
    "LazyTransform",
    "Logit",
    "LogitTransform",
    "MonotonicAffineTransform",
    "MonotonicRQSTransform",
    "MonotonicTransform",
    "PermutationTransform",
    "SOSPolynomialTransform",
    "ScaleTransform",
    "SigmoidTransform",
    "SignedPowerTransform",
    "SinTransform",
    "SoftclipTransform",
    "Standardize",
    "TanhTransform",
    "Transform",
    "UnconditionalTransform",
    "UnconstrainedMonotonicTransform",
    "call_and_ladj",
    "check_features",
]
