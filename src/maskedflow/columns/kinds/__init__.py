"""The kinds of columns, a class each, which is found by its names once it is made."""

from . import category, date, fixed, number

__all__ = ["category", "date", "fixed", "number"]
