"""Invertible maps and their log-determinants.

What constructors have in common: `features` is the number of features D, and `shape` the shape
(C, H, W) of an image, which is flattened, channels first. Random orders and rotations are drawn
from `generator`, torch's own if None.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch.distributions.transforms import ExpTransform, SigmoidTransform, TanhTransform

from .autoregressive import AutoregressiveTransform, CouplingTransform
from .base import (
    ComposedTransform,
    DependentTransform,
    IdentityTransform,
    Transform,
    UnivariateTransform,
    VectorTransform,
    call_and_ladj,
    check_features,
)
from .bounds import Bounds, BoundsTransform
from .dequantize import Dequantize, places_in_a_cell, spread
from .elementary import (
    CircularShiftTransform,
    CosTransform,
    SignedPowerTransform,
    SinTransform,
    SoftclipTransform,
)
from .lazy import LazyComposedTransform, LazyInverse, LazyTransform, UnconditionalTransform
from .linear import (
    LULinear,
    LULinearTransform,
    Permutation,
    PermutationTransform,
    PLULinear,
    RotationTransform,
)
from .mixture import GaussianizationTransform, MonotonicMixtureTransform
from .monotonic import MonotonicTransform, Residual, ResidualTransform
from .multiscale import Head, HeadTransform, Pixelwise, PixelwiseTransform, SqueezeTransform
from .normalization import ActNorm, BatchNorm
from .normalscores import NormalScores, TailedSplineTransform
from .polynomial import (
    BernsteinTransform,
    BoundedBernsteinTransform,
    SOSPolynomialTransform,
    UnconstrainedMonotonicTransform,
)
from .preprocessing import Logit, LogitTransform, Narrow, ScaleTransform, Standardize
from .probit import Probit, ProbitTransform
from .spline import CircularRQSTransform, MonotonicRQSTransform
from .univariate import AdditiveTransform, MeanPrecisionTransform, MonotonicAffineTransform
from .whiten import Whiten, WhitenTransform

__all__ = [
    "ActNorm",
    "AdditiveTransform",
    "AutoregressiveTransform",
    "BatchNorm",
    "BernsteinTransform",
    "BoundedBernsteinTransform",
    "Bounds",
    "BoundsTransform",
    "CircularRQSTransform",
    "CircularShiftTransform",
    "ComposedTransform",
    "CosTransform",
    "CouplingTransform",
    "DependentTransform",
    "Dequantize",
    "ExpTransform",
    "GaussianizationTransform",
    "Head",
    "HeadTransform",
    "IdentityTransform",
    "LULinear",
    "LULinearTransform",
    "LazyComposedTransform",
    "LazyInverse",
    "LazyTransform",
    "Logit",
    "LogitTransform",
    "MeanPrecisionTransform",
    "MonotonicAffineTransform",
    "MonotonicMixtureTransform",
    "MonotonicRQSTransform",
    "MonotonicTransform",
    "Narrow",
    "NormalScores",
    "PLULinear",
    "Permutation",
    "PermutationTransform",
    "Pixelwise",
    "PixelwiseTransform",
    "Probit",
    "ProbitTransform",
    "Residual",
    "ResidualTransform",
    "RotationTransform",
    "SOSPolynomialTransform",
    "ScaleTransform",
    "SigmoidTransform",
    "SignedPowerTransform",
    "SinTransform",
    "SoftclipTransform",
    "SqueezeTransform",
    "Standardize",
    "TailedSplineTransform",
    "TanhTransform",
    "Transform",
    "UnconditionalTransform",
    "UnconstrainedMonotonicTransform",
    "UnivariateTransform",
    "VectorTransform",
    "Whiten",
    "WhitenTransform",
    "call_and_ladj",
    "check_features",
    "places_in_a_cell",
    "spread",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Torch's other transforms, which code for zuko looks for here."""
        if name in torch.distributions.transforms.__all__:
            return getattr(torch.distributions.transforms, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
