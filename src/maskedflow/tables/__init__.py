"""Tables as they are: columns of every kind, what is known of them, and exact densities of rows."""

from maskedflow.columns import (
    Column,
    Form,
    Layout,
    Rows,
    Schema,
    all_numbers,
    as_array,
    as_declared,
    complete,
    from_arrow,
    kind_of,
    read_declared,
    read_document,
    read_frame,
    read_source,
    to_arrow,
    to_rows,
    to_table,
    weights_of,
)
from maskedflow.flows.stack import Stack, stacking_weights
from maskedflow.transforms import Bounds, BoundsTransform
from maskedflow.transforms.whiten import Whiten, WhitenTransform

from .bounds import column_maps
from .categories import AutoregressiveCategorical, AutoregressiveCategoricalDistribution
from .completion import Completed, Known, sample_unknown
from .contest import FLOWS, Tell
from .context import check_context, context_matrix, free_numbers, strange_context
from .density import TableDensity, number_context, present_columns
from .fitted import FittedTable
from .heaping import fit_heaps
from .heaps import Heaps, HeapsTransform, first_steps
from .marginal import Marginal, given_columns, log_marginal, pieces_of, units_of
from .missing import PartialDistribution, PartialFlow
from .pit import pit
from .plan import build_density
from .proposal import Pieces, Points, Proposal
from .queries import ConditionalScore
from .search import fit_density

__all__ = [
    "FLOWS",
    "AutoregressiveCategorical",
    "AutoregressiveCategoricalDistribution",
    "Bounds",
    "BoundsTransform",
    "Column",
    "Completed",
    "ConditionalScore",
    "FittedTable",
    "Form",
    "Heaps",
    "HeapsTransform",
    "Known",
    "Layout",
    "Marginal",
    "PartialDistribution",
    "PartialFlow",
    "Pieces",
    "Points",
    "Proposal",
    "Rows",
    "Schema",
    "Stack",
    "TableDensity",
    "Tell",
    "Whiten",
    "WhitenTransform",
    "all_numbers",
    "as_array",
    "as_declared",
    "build_density",
    "check_context",
    "column_maps",
    "complete",
    "context_matrix",
    "first_steps",
    "fit_density",
    "fit_heaps",
    "free_numbers",
    "from_arrow",
    "given_columns",
    "kind_of",
    "log_marginal",
    "number_context",
    "pieces_of",
    "pit",
    "present_columns",
    "read_declared",
    "read_document",
    "read_frame",
    "read_source",
    "sample_unknown",
    "stacking_weights",
    "strange_context",
    "to_arrow",
    "to_rows",
    "to_table",
    "units_of",
    "weights_of",
]
