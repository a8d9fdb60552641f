"""``maskedflow datasets``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .output import print_table

if TYPE_CHECKING:
    from maskedflow.data import Description


def datasets(*, data_dir: Path | None = None) -> None:
    """List the known data sets, where they come from, and whether they are here.

    Args:
        data_dir: Where data sets lie. [default: $MASKEDFLOW_DATA, then the user's cache]
    """
    from maskedflow.data import NAMES, describe

    rows = []
    for name in NAMES:
        found = describe(name, data_dir)
        numbers = str(found.features), f"{found.rows[0]:,}"
        rows.append((name, found.kind, *numbers, _place(found), found.url))
    numeric = "features", "training rows"
    print_table(("name", "kind", *numeric, "here", "source"), numeric, rows)


def _place(found: Description) -> str:
    if found.built_in:
        return "built in"
    if found.folder is not None:
        return str(found.folder)
    return "no, --download fetches it" if found.downloadable else "no"
