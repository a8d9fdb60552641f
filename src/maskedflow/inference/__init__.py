"""Inference: what one does with a posterior density."""

from .named import NamedDensity

__all__ = ["NamedDensity"]
