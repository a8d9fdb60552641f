"""Masked matrices with sorted rows: packed, multiplied and differentiated."""

from .layout import Layout, Writer
from .packing import Slab, Staircase, slab_of, slab_size
from .program import Operation, Program, joined, merged
from .trunk import Trunk, is_traced, layer_sums, masked_product

__all__ = [
    "Layout",
    "Operation",
    "Program",
    "Slab",
    "Staircase",
    "Trunk",
    "Writer",
    "is_traced",
    "joined",
    "layer_sums",
    "masked_product",
    "merged",
    "slab_of",
    "slab_size",
]
