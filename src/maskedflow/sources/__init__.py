"""Tables on disk as streams of Arrow record batches, and how they are written."""

from .dialect import Dialect
from .opening import is_csv, open_source
from .source import CellError, Shard, Source, table_name
from .unpacked import STDIN
from .writer import write_batches, write_table

__all__ = [
    "STDIN",
    "CellError",
    "Dialect",
    "Shard",
    "Source",
    "is_csv",
    "open_source",
    "table_name",
    "write_batches",
    "write_table",
]
