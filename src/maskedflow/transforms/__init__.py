"""Invertible maps and their log-determinants."""

from typing import TYPE_CHECKING, Any

import torch
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

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Torch's other transforms, which code for zuko looks for here."""
        if name in torch.distributions.transforms.__all__:
            return getattr(torch.distributions.transforms, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
