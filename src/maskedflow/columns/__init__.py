"""What the columns of a table are: kinds and schema, and rows of numbers from any frame."""

from .column import Column
from .convert import to_rows, to_table
from .forms import Form, from_arrow
from .frames import as_array, kind_of, read_frame, to_arrow, weights_of
from .kinds.number import Value
from .reading import all_numbers, as_declared, read_declared, read_source
from .rows import Layout, Rows
from .schema import Schema, complete, ignored
from .toml import read_document

__all__ = [
    "Column",
    "Form",
    "Layout",
    "Rows",
    "Schema",
    "Value",
    "all_numbers",
    "as_array",
    "as_declared",
    "complete",
    "from_arrow",
    "ignored",
    "kind_of",
    "read_declared",
    "read_document",
    "read_frame",
    "read_source",
    "to_arrow",
    "to_rows",
    "to_table",
    "weights_of",
]
