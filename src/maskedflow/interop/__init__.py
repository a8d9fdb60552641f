"""Bridges to other libraries, which are imported when a bridge is used."""

from . import ray, sbi

__all__ = ["ray", "sbi"]
