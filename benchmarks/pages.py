"""What a benchmark leaves: its numbers as JSON, and a page of Markdown about them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from maskedflow.data import write_text

RESULTS = Path(__file__).with_name("results")


def read(path: Path) -> dict[str, Any]:
    """The numbers that are there already; empty if there are none."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def write(path: Path, numbers: Mapping[str, Any], page: str) -> None:
    """Writes numbers to a path that ends in .json, and the page beside it."""
    write_text(path, json.dumps(numbers, indent=1) + "\n")
    write_text(path.with_suffix(".md"), page)


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}" if value >= 1e-3 else f"{value:.2g}"


def markdown(rows: Iterable[Iterable[str]]) -> str:
    """A table with a head, its columns aligned in plain text too."""
    head, *body = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)) + " |"
        for row in [head, *body]
    ]
    lines.insert(1, "|" + "|".join("-" * (n + 2) for n in widths) + "|")
    return "\n".join(lines)


def machine_table(setting: Mapping[str, object]) -> str:
    """A table of what :func:`timing.machine` tells."""
    return markdown([["machine", ""], *([name, str(value)] for name, value in setting.items())])
