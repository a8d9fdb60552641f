"""``maskedflow datasets``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskedflow.data import Description


def datasets(*, data_dir: Path | None = None) -> None:
    """List the known data sets, where they come from, and whether they are here.

    Args:
        data_dir: Where data sets lie. [default: $MASKEDFLOW_DATA, then the user's cache]
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from maskedflow.data import NAMES, describe

    table = Table("name", "kind", box=SIMPLE, pad_edge=False)
    for heading in ("features", "training rows"):
        table.add_column(heading, justify="right")
    table.add_column("here", overflow="fold")
    table.add_column("source", overflow="fold")
    for name in NAMES:
        found = describe(name, data_dir)
        rows = f"{found.rows[0]:,}"
        table.add_row(name, found.kind, str(found.features), rows, _place(found), found.url)
    console = Console()
    if not console.is_terminal:
        console.width = 160  # a pipe has no width, and paths are long
    console.print(table)


def _place(found: Description) -> str:
    if found.built_in:
        return "built in"
    if found.folder is not None:
        return str(found.folder)
    return "no, --download fetches it" if found.downloadable else "no"
