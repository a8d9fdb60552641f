"""The kinds of columns, a class each, which is found by its names once it is made."""

from .category import Boolean, Category, Ordinal
from .date import Date
from .fixed import Constant, Duplicate
from .number import Angle, Number, Value

__all__ = [
    "Angle",
    "Boolean",
    "Category",
    "Constant",
    "Date",
    "Duplicate",
    "Number",
    "Ordinal",
    "Value",
]
