"""Masked matrices with sorted rows: packed, multiplied and differentiated."""

from maskedflow.kernels import Code

from .packing import Slab, Staircase, slab_of, slab_size
from .program import Layout, Operation, Program, Writer
from .trunk import Trunk, is_traced, layer_sums, masked_product

__all__ = [
    "Code",
    "Layout",
    "Operation",
    "Program",
    "Slab",
    "Staircase",
    "Trunk",
    "Writer",
    "is_traced",
    "layer_sums",
    "masked_product",
    "slab_of",
    "slab_size",
]
