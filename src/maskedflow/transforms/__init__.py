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
from .coupling import CouplingTransform
from .lazy import LazyComposedTransform, LazyInverse, LazyTransform, UnconditionalTransform
from .linear import LULinear, LULinearTransform, RotationTransform
from .monotonic import MonotonicTransform
from .normalization import ActNorm, BatchNorm
from .permutation import Permutation, PermutationTransform
from .preprocessing import Dequantize, Logit, LogitTransform, ScaleTransform, Standardize
from .residual import Residual, ResidualTransform
from .spline import MonotonicRQSTransform
from .univariate import AdditiveTransform, MonotonicAffineTransform

__all__ = [
    "ActNorm",
    "AdditiveTransform",
    "AutoregressiveTransform",
    "BatchNorm",
    "ComposedTransform",
    "CouplingTransform",
    "DependentTransform",
    "Dequantize",
    "ExpTransform",
    "IdentityTransform",
    "LULinear",
    "LULinearTransform",
    "LazyComposedTransform",
    "LazyInverse",
    "LazyTransform",
    "Logit",
    "LogitTransform",
    "MonotonicAffineTransform",
    "MonotonicRQSTransform",
    "MonotonicTransform",
    "Permutation",
    "PermutationTransform",
    "Residual",
    "ResidualTransform",
    "RotationTransform",
    "ScaleTransform",
    "SigmoidTransform",
    "Standardize",
    "TanhTransform",
    "Transform",
    "UnconditionalTransform",
    "call_and_ladj",
    "check_features",
]
