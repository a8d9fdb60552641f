"""The one-sweep inverse of an autoregressive transform."""

from .inverse import invert
from .plan import Plan

__all__ = ["Plan", "invert"]
