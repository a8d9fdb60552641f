"""Cells that are numbers or dates to people, and what keeps a program from reading them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

NOTATIONS = {
    "a separator of thousands; write 1234.5": (
        r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?|[+-]?\d{1,3}([ '\u00a0\u202f]\d{3})+([.,]\d+)?"
        r"|[+-]?\d{1,3}(\.\d{3})+,\d+|[+-]?\d{1,3}(\.\d{3}){2,}"
    ),
    "a decimal comma; --decimal , reads it": r"[+-]?\d*,\d+",
    "a currency sign; leave it out": r"[+-]?[$€£¥] ?[+-]?[\d.,]+|[+-]?[\d.,]+ ?[$€£¥]",
    "a percent sign; leave it out": r"[+-]?[\d.,]+ ?%",
    "a negative number in brackets; write a minus": r"\([\d.,]+\)",
}
"""Cells that are numbers to a reader, and what to do about them."""

DATE = re.compile(
    r"(?P<date>\d{1,2}(?P<a>[/.-])\d{1,2}(?P=a)(\d{4}|\d{2})|\d{4}(?P<b>[/.])\d{1,2}(?P=b)\d{1,2})"
    r"(?P<time>[ T].*)?"
)
"""Dates that are not as ISO 8601 has them."""

DATE_ADVICE = "%d/%m/%Y, of 31/12/2024"
LOOKED_AT = 1000
"""Cells that tell how dates are written."""


def notation(cell: str, others: Iterable[str] = ()) -> str | None:
    """What keeps a program from reading a cell that people read as a number or a date, if any.

    Args:
        cell: The cell.
        others: Cells of its column, which may tell a day from a month.

    Example:
        >>> notation("1,234"), notation("12%"), notation("tall"), notation("1.5")
        ('a separator of thousands; write 1234.5', 'a percent sign; leave it out', None, None)
        >>> notation("01/12/2024")
        'a date; --date_format %d/%m/%Y reads it day first, --date_format %m/%d/%Y month first'
        >>> notation("01/12/2024", ["31/12/2024"])
        'a date; --date_format %d/%m/%Y reads it'
    """
    cell = cell.strip()
    if found := next((why for why, form in NOTATIONS.items() if re.fullmatch(form, cell)), None):
        return found
    if not DATE.fullmatch(cell):
        return None
    dates = [one for one in islice(others, LOOKED_AT) if DATE.fullmatch(one.strip())]
    match [f"--date_format {_quoted(one)}" for one in date_formats([cell, *dates])]:
        case [one]:
            return f"a date; {one} reads it"
        case [first, second, *_]:
            return f"a date; {first} reads it day first, {second} month first"
    return "a date; write 2024-12-31"


def date_formats(cells: Iterable[str]) -> list[str]:
    """The formats, as `strftime` has them, that read all of some dates.

    Example:
        >>> date_formats(["31.12.2024 23:00"])
        ['%d.%m.%Y %H:%M']
    """
    texts = [cell.strip() for cell in cells]
    first = DATE.fullmatch(texts[0])
    assert first is not None
    return [form for form in _candidates(first) if all(_reads(form, text) for text in texts)]


def is_written_number(cell: str) -> bool:
    """Whether a cell is a number as programs write it."""
    return NUMBER.fullmatch(cell.strip()) is not None


def _candidates(date: re.Match[str]) -> Iterator[str]:
    """Formats of the shape of a date, days first before months first."""
    between = date["a"] or date["b"]
    parts = date["date"].split(between)
    time = date["time"] or ""
    times = [""]
    if time:
        times = [f"{time[0]}%H:%M", f"{time[0]}%H:%M:%S"]
    year = "%Y" if len(parts[0 if date["b"] else 2]) == 4 else "%y"
    orders = [("%Y", "%m", "%d")] if date["b"] else [("%d", "%m", year), ("%m", "%d", year)]
    for order in orders:
        for behind in times:
            yield between.join(order) + behind


def _reads(form: str, text: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True


def _quoted(form: str) -> str:
    """As a shell takes it."""
    return f"'{form}'" if " " in form else form
