"""Neural networks: masked layers and MADE's trunk, dense, convolutional and monotone ones.

Random degrees and initial weights are drawn from a constructor's `generator`, torch's own if None.
"""

from .convolution import ConvNet, Convolution
from .dense import MLP, LayerNorm, Linear
from .masked import MaskedLinear, MaskedMLP
from .monotone import MonotonicLinear, MonotonicMLP, TwoWayELU
from .raster import MaskedConvNet, MaskedConvolution

__all__ = [
    "MLP",
    "ConvNet",
    "Convolution",
    "LayerNorm",
    "Linear",
    "MaskedConvNet",
    "MaskedConvolution",
    "MaskedLinear",
    "MaskedMLP",
    "MonotonicLinear",
    "MonotonicMLP",
    "TwoWayELU",
]
