"""Bridges to other libraries, which are imported when a bridge is used."""

from . import ray, sbi
from .exported import export, latents

__all__ = ["export", "latents", "ray", "sbi"]
