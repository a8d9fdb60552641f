"""The numbers at an axis, in the words of its column."""

from __future__ import annotations

from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

from maskedflow.report.subject import Column

CUTS = (4, 7, 10, 16, 19)
"""How long a year is in ISO 8601, a month, a day, a minute, a second."""


def name_ticks(axis: Axis, column: Column, most: int = 4) -> None:
    """Sets few ticks within the limits of an axis, of dates with their names."""
    if column.date is None:
        axis.set_major_locator(MaxNLocator(most, integer=column.step >= 1))
        return
    low, high = sorted(axis.get_view_interval())
    places = [x for x in MaxNLocator(min(most, 3)).tick_values(low, high) if low <= x <= high]
    axis.set_ticks(places, shortened([column.date(float(place)) for place in places]))


def shortened(dates: list[str]) -> list[str]:
    """Dates as short as leaves them different.

    Example:
        >>> shortened(["2014-03-02", "2014-05-01"]), shortened(["10:00:00", "12:00:00"])
        (['2014-03', '2014-05'], ['10:00:00', '12:00:00'])
    """
    if not all(date[4:5] == "-" for date in dates):
        return dates
    for cut in CUTS:
        short = [date[:cut] for date in dates]
        if len(set(short)) == len(dates):
            return short
    return dates
