"""The one-sweep inverse of an autoregressive transform."""

from .inverse import invert
from .plan import Plan
from .raster import invert_raster

__all__ = ["Plan", "invert", "invert_raster"]
