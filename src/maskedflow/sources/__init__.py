"""Tables on disk as streams of Arrow record batches, and how they are written."""

from .opening import open_source
from .source import CellError, Shard, Source
from .writer import write_batches, write_table

__all__ = ["CellError", "Shard", "Source", "open_source", "write_batches", "write_table"]
