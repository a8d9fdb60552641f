"""Tables as HTML, as notebooks show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

MOST = 20
"""The rows that are shown of a long table."""


def html_table(heading: Sequence[str], rows: Sequence[Sequence[object]], most: int = MOST) -> str:
    """A table of text, of which the first rows are shown.

    Example:
        >>> html_table(["a"], [["<x>"], ["y"]], most=1)
        '<table><tr><th>a</th></tr><tr><td>&lt;x&gt;</td></tr></table><p>1 more</p>'
    """
    lines = [_line("th", heading), *(_line("td", row) for row in rows[:most])]
    rest = f"<p>{len(rows) - most:,} more</p>" if len(rows) > most else ""
    return f"<table>{''.join(lines)}</table>{rest}"


def html_facts(title: str, facts: Mapping[str, object]) -> str:
    """What is known of something, a line each, below its name; what is empty is left out.

    Example:
        >>> html_facts("moons", {"rows": 800, "context": ""})
        '<p><b>moons</b></p><table><tr><td>rows</td><td>800</td></tr></table>'
    """
    lines = (_line("td", (name, fact)) for name, fact in facts.items() if str(fact))
    return f"<p><b>{escape(title)}</b></p><table>{''.join(lines)}</table>"


def _line(tag: str, cells: Iterable[object]) -> str:
    inner = "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells)
    return f"<tr>{inner}</tr>"
