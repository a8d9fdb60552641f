"""Ticks: few, apart from each other, and written as numbers are in a text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import Formatter, MaxNLocator
from numpy.typing import NDArray

from .figures import Limits

Numbers = NDArray[np.float64]

STEPS = (1, 2, 2.5, 3, 4, 5, 10)
"""Between ticks, times a power of ten."""

MANY, FEW = 1e6, 1e-3
"""Numbers from here on, and below, are counted in a power of ten that stands in the label."""


def power_of(limits: Limits) -> int:
    """The power of ten, a multiple of three, in which numbers within limits are counted.

    Example:
        >>> power_of((0.0, 2000.0)), power_of((9.9e8, 1.1e9)), power_of((0.0, 2e-5))
        (0, 9, -6)
    """
    size = max(map(abs, limits))
    if not math.isfinite(size) or size == 0 or FEW <= size < MANY:
        return 0
    return 3 * math.floor(math.log10(size) / 3)


def ten_to(power: int) -> str:
    """A power of ten.

    Example:
        >>> ten_to(9), ten_to(-6)
        ('10⁹', '10⁻⁶')
    """
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def counted_in(name: str, power: int) -> str:
    """A label with the power of ten in which its numbers are counted, if that is not one.

    Example:
        >>> counted_in("people", 6), counted_in("age", 0)
        ('people (10⁶)', 'age')
    """
    return f"{name} ({ten_to(power)})" if power else name


def signed(value: object) -> str:
    """A number with a true minus in front, and none in front of zero.

    Example:
        >>> signed("-0.25"), signed("-0.000"), signed("-0.00 ± 0.12")
        ('−0.25', '0.000', '0.00 ± 0.12')
    """
    text = str(value)
    zero = re.match(r"-[0.]+(?![\d.])", text)
    return re.sub("^-", "" if zero else "−", text)


class PlainFormatter(Formatter):
    """Writes ticks with as many decimals as tell them apart, a true minus and thousands set apart.

    Args:
        power: The power of ten in which numbers are counted.

    Example:
        >>> PlainFormatter().format_ticks([-500.0, 0.0, 1500.0])
        ['−500', '0', '1,500']
        >>> PlainFormatter(9).format_ticks([0.99e9, 1e9, 1.01e9])
        ['0.99', '1.00', '1.01']
    """

    def __init__(self, power: int = 0) -> None:
        self.power = power

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """The texts of ticks."""
        found = np.asarray(values, np.float64) / 10.0**self.power
        apart = np.diff(np.unique(found)).min() if len(np.unique(found)) > 1 else 0.0
        # To a hundredth of the distance, so that what is 0.25 is not 0.2 or 0.3.
        digits = next((d for d in range(12) if _is_told(found, d, apart)), 12)
        return [signed(f"{x:,.{digits}f}") for x in found]

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The text of a number alone."""
        return self.format_ticks([x])[0]


def _is_told(values: Numbers, digits: int, apart: float) -> bool:
    """Whether so many decimals tell numbers that are so far apart."""
    error = np.abs(values - values.round(digits)).max(initial=0.0)
    return bool(error <= 0.01 * apart or error <= 1e-9 * np.abs(values).max(initial=0.0))


class InnerLocator(MaxNLocator):
    """Few ticks, none near the ends, where their labels would push panels apart."""

    def __init__(self, most: int) -> None:
        super().__init__(most, steps=STEPS)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Ticks at round numbers."""
        margin = 0.12 * (vmax - vmin)
        low, high = vmin + margin, vmax - margin
        return [tick for tick in super().tick_values(low, high) if low <= tick <= high]


def number_ticks(axis: Axis, most: int, *, whole: bool = False, characters: int = 28) -> int:
    """Sets at most so many ticks within the limits of an axis, fewer if their texts are long.

    Args:
        axis: The axis, whose limits are set.
        most: The most ticks.
        whole: That they are whole numbers.
        characters: How many there is room for.

    Returns:
        The power of ten in which ticks are counted, for the label: see :func:`counted_in`.
    """
    low, high = sorted(axis.get_view_interval())
    formatter = PlainFormatter(power_of((low, high)))
    places: list[float] = []
    for number in range(most, 0, -1):
        locator = MaxNLocator(number, integer=whole, min_n_ticks=1, steps=(1, 2, 2.5, 5, 10))
        ticks = locator.tick_values(low, high)
        places = [tick for tick in ticks if low <= tick <= high]
        if sum(len(text) + 2 for text in formatter.format_ticks(places)) <= characters:
            break
    axis.set_ticks(places, formatter.format_ticks(places))
    return formatter.power
