"""Files: written whole or not at all, locked while in use, and read as plain, checked data."""

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
from .writing import atomic, atomic_folder, exclusive, write_text

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
    "open_regular",
    "parse_json",
    "parse_toml",
    "read_text",
    "write_text",
]
