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
from .lazy import LazyComposedTransform, LazyInverse, LazyTransform, UnconditionalTransform
from .mixture import MonotonicMixtureTransform
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
    "ComposedTransform",
    "DependentTransform",
    "Dequantize",
    "ExpTransform",
    "IdentityTransform",
    "LazyComposedTransform",
    "LazyInverse",
    "LazyTransform",
    "Logit",
    "LogitTransform",
    "MonotonicAffineTransform",
    "MonotonicMixtureTransform",
    "MonotonicRQSTransform",
    "MonotonicTransform",
    "PermutationTransform",
    "ScaleTransform",
    "SigmoidTransform",
    "Standardize",
    "TanhTransform",
    "Transform",
    "UnconditionalTransform",
    "call_and_ladj",
    "check_features",
]
