"""Files: written whole or not at all, locked while in use, and read as plain, checked data."""

from .markup import html_facts, html_table
from .plain import (
    CLOSED,
    Count,
    Finite,
    Name,
    Positive,
    Size,
    Stem,
    blame,
    check,
    check_fields,
    open_regular,
    parse_json,
    parse_toml,
    read_text,
)
from .writing import atomic, atomic_folder, exclusive, named, sweep, write_text

__all__ = [
    "CLOSED",
    "Count",
    "Finite",
    "Name",
    "Positive",
    "Size",
    "Stem",
    "atomic",
    "atomic_folder",
    "blame",
    "check",
    "check_fields",
    "exclusive",
    "html_facts",
    "html_table",
    "named",
    "open_regular",
    "parse_json",
    "parse_toml",
    "read_text",
    "sweep",
    "write_text",
]
