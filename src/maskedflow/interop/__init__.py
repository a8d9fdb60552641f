"""Bridges to other libraries, which are imported when a bridge is used."""

from . import sbi
from .exported import export, latents

__all__ = ["export", "latents", "sbi"]
