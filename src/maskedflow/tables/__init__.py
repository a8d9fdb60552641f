"""Tables as they are: columns of every kind, what is known of them, and exact densities of rows."""

from .column import Column
from .convert import to_rows, to_table
from .document import read_document
from .frames import from_arrow, kind_of, to_arrow
from .rows import Layout, Rows
from .schema import Schema, complete

__all__ = [
    "Column",
    "Layout",
    "Rows",
    "Schema",
    "complete",
    "from_arrow",
    "kind_of",
    "read_document",
    "to_arrow",
    "to_rows",
    "to_table",
]
