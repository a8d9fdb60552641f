"""Neural networks: masked layers and MADE's trunk, dense and monotone ones."""

from .dense import MLP, LayerNorm, Linear
from .masked import MaskedLinear, MaskedMLP
from .monotone import MonotonicLinear, MonotonicMLP, TwoWayELU

__all__ = [
    "MLP",
    "LayerNorm",
    "Linear",
    "MaskedLinear",
    "MaskedMLP",
    "MonotonicLinear",
    "MonotonicMLP",
    "TwoWayELU",
]
