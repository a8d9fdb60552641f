"""Numbers, intervals and times as a page writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from maskedflow.plot.ticks import signed, ten_to

MANY, FEW = 1e15, 1e-4
"""From where on, and below what, a number is written with a power of ten."""


def number(value: float) -> str:
    """A number to four digits, or to all those before the point, thousands set apart.

    Example:
        >>> number(1823.4), number(12523.9), number(0.0001234), number(-3.14159), number(42)
        ('1,823', '12,524', '0.0001234', '−3.142', '42')
        >>> number(9.919e-6), number(-2.5e20), number(-0.0)
        ('9.919×10⁻⁶', '−2.5×10²⁰', '0')
    """
    size = abs(value)
    if math.isfinite(value) and (size >= MANY or 0 < size < FEW):
        mantissa, _, power = f"{value:.3e}".partition("e")
        return f"{signed(f'{float(mantissa):g}')}×{ten_to(int(power))}"
    return signed(f"{value:,.0f}" if size >= 999.95 else f"{value:.4g}")


def rounded(value: float) -> str:
    """A number to two digits.

    Example:
        >>> rounded(0.1234), rounded(1234.5), rounded(2.0)
        ('0.12', '1,200', '2')
    """
    return number(float(f"{value:.2g}"))


def interval(low: float, high: float) -> str:
    """An interval of numbers, to a tenth of its width or so.

    Example:
        >>> interval(0.3612, 0.5299), interval(-0.571, -0.36), interval(12.0, 1460.0)
        ('0.36 to 0.53', '−0.57 to −0.36', '12 to 1,460')
    """
    width = high - low
    # Of 0.07, which is 0.21 three times, two decimals are enough.
    digits = max(0, 1 - math.floor(math.log10(3 * width))) if 0 < width < math.inf else 2
    low_text, high_text = (signed(f"{end:,.{digits}f}") for end in (low, high))
    return f"{low_text} to {high_text}"


def shares(low: float, high: float) -> str:
    """An interval of shares in percent, within what shares can be.

    Example:
        >>> shares(0.5812, 0.6409), shares(-0.002, 0.013)
        ('58 to 64%', '0.0 to 1.3%')
    """
    digits = 0 if high - low > 0.02 else 1
    return "{:.{digits}f} to {:.{digits}f}%".format(
        *(100 * min(max(end, 0.0), 1.0) for end in (low, high)), digits=digits
    )


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    Example:
        >>> duration(0.00347), duration(2.5), duration(125)
        ('3.5 ms', '2.5 s', '125 s')
    """
    if seconds < 0.1:
        return f"{seconds * 1000:.2g} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"


def percent(share: float) -> str:
    """A share in percent, to a digit behind the point.

    Example:
        >>> percent(0.1234), percent(1.0), percent(0.0)
        ('12.3%', '100%', '0%')
    """
    return f"{share:.0%}" if share in {0, 1} else f"{100 * share:.1f}%"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names in a sentence, of many the first and how many more.

    Example:
        >>> listed(["age"]), listed(["age", "height"]), listed(["a", "b", "c", "d", "e"])
        ('age', 'age and height', 'a, b, c and 2 more')
    """
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def no_difference(
    rows: str, size: float, most: float, unit: str = "", *, what: str = "", percent: bool = False
) -> str:
    """That rows show no difference, and how large one would have had to be for that.

    Args:
        rows: How many there are of what.
        size: The difference that they would have shown.
        most: The largest that there can be.
        unit: That of the difference.
        what: What it would be a difference of or from.
        percent: Whether it is one of shares.

    Example:
        >>> no_difference("2,000 rows", 0.032, 0.5, percent=True)
        'No difference found: 2,000 rows would have shown one of 3.2%.'
        >>> no_difference("3 rows", 1.6, 1.0, what="of correlation")
        'No difference of correlation found, for which 3 rows are too few.'
    """
    about = f" {what}" if what else ""
    if not size < most:
        return f"No difference{about} found, for which {rows} are too few."
    told = f"{rounded(100 * size)}%" if percent else f"{rounded(size)}{unit}"
    return f"No difference{about} found: {rows} would have shown one of {told}."


def clipped(text: str, most: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
