"""Masked matrices with sorted rows: packed, multiplied and differentiated."""

from .packing import Slab, Staircase, slab_of, slab_size
from .program import Code, Operation, Program, Rows, Writer
from .trunk import Layout, Trunk, is_traced, masked_product

__all__ = [
    "Code",
    "Layout",
    "Operation",
    "Program",
    "Rows",
    "Slab",
    "Staircase",
    "Trunk",
    "Writer",
    "is_traced",
    "masked_product",
    "slab_of",
    "slab_size",
]
