"""The kinds of columns, a class each: what cells look like, their codes and numbers, and back.

A class is found by the names of its kinds once it is made. Those that come last are asked first
what a column is.
"""

from .angle import Angle
from .category import Boolean, Category, Ordinal
from .date import Date
from .fixed import Constant, Duplicate, Fixed
from .number import Number
from .value import Value

__all__ = [
    "Angle",
    "Boolean",
    "Category",
    "Constant",
    "Date",
    "Duplicate",
    "Fixed",
    "Number",
    "Ordinal",
    "Value",
]
