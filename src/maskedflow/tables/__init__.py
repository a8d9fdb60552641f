"""Densities of tables whose columns are of all kinds."""

from .bounds import Bounds, BoundsTransform, column_maps
from .categories import AutoregressiveCategorical, AutoregressiveCategoricalDistribution
from .density import TableDensity, present_columns
from .partial import PartialDistribution, PartialFlow
from .rows import Layout, Rows
from .whiten import Whiten, WhitenTransform

__all__ = [
    "AutoregressiveCategorical",
    "AutoregressiveCategoricalDistribution",
    "Bounds",
    "BoundsTransform",
    "Layout",
    "PartialDistribution",
    "PartialFlow",
    "Rows",
    "TableDensity",
    "Whiten",
    "WhitenTransform",
    "column_maps",
    "present_columns",
]
