"""Tables as they are: columns of every kind, what is known of them, and exact densities of rows."""

from .rows import Layout, Rows

__all__ = ["Layout", "Rows"]
