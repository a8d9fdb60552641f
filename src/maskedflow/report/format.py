"""Numbers and times as a page writes them."""

from __future__ import annotations


def number(value: float) -> str:
    """A number to four digits, thousands set apart.

    Example:
        >>> number(1234567), number(0.0001234), number(-3.14159), number(42)
        ('1,234,567', '0.0001234', '−3.142', '42')
    """
    if float(value).is_integer() and abs(value) < 1e9:
        return signed(f"{int(value):,}")
    return signed(f"{value:.4g}")


def signed(value: object) -> str:
    """A number with a true minus in front."""
    text = str(value)
    return f"−{text[1:]}" if text.startswith("-") else text


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    Example:
        >>> duration(0.00347), duration(2.5), duration(125)
        ('3.5 ms', '2.5 s', '125 s')
    """
    if seconds < 0.1:
        return f"{seconds * 1000:.2g} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def percent(share: float) -> str:
    """A share in percent, to a digit behind the point.

    Example:
        >>> percent(0.1234), percent(1.0), percent(0.0)
        ('12.3%', '100%', '0%')
    """
    return f"{share:.0%}" if share in {0, 1} else f"{100 * share:.1f}%"


def clipped(text: str, most: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
