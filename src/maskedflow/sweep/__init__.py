"""The one-sweep inverse of an autoregressive transform."""

from .inverse import invert
from .plan import Block, Plan

__all__ = ["Block", "Plan", "invert"]
