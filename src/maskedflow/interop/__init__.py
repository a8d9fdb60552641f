"""Bridges to other libraries, which are imported when a bridge is used."""

from . import sbi

__all__ = ["sbi"]
