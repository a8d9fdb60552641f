"""``maskedflow datasets``."""

from __future__ import annotations

from pathlib import Path

__all__ = ["datasets"]


def datasets(*, data_dir: Path | None = None) -> None:
    """List the known data sets, where they come from, and whether they are here.

    Args:
        data_dir: Where data sets lie. [default: $MASKEDFLOW_DATA, then the user's cache]
    """
    from rich.console import Console
    from rich.table import Table

    from maskedflow.data import NAMES, Description, describe

    def place(found: Description) -> str:
        if found.built_in:
            return "built in"
        if found.folder is not None:
            return str(found.folder)
        return "not here" + (", --download fetches it" if found.downloadable else "")

    table = Table("name", "kind", "features", "rows", "source", "here")
    for name in NAMES:
        found = describe(name, data_dir)
        rows = " + ".join(f"{n:,}" for n in found.rows)
        table.add_row(name, found.kind, str(found.features), rows, found.url or "-", place(found))
    Console().print(table)
    Console().print("rows: training + validation + test")
