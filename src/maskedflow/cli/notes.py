"""What commands print: notes on standard error, tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskedflow.data import Seen


def note(text: str) -> None:
    """Says what should be known, and is no result."""
    print(f"note: {text}", file=sys.stderr)


def tell_seen(seen: Seen | None, where: str) -> None:
    """Warns of test rows that are no test, if there are some."""
    if seen is not None and (seen.trained or seen.validated):
        note(f"{where}: {seen}; of such rows the likelihood is too good")


def print_table(names: Sequence[str], right: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table, some of whose columns are numbers that belong to the right."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 250  # a pipe has no width, and paths are long
    console.print(table)
