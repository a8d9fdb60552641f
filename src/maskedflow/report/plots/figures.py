"""Pictures of a report: written to a file, or put into a page; and ticks that are dates."""

from __future__ import annotations

import base64
import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from maskedflow.files import atomic
from maskedflow.plot.ticks import number_ticks
from maskedflow.report.section import Column

WIDTH = 600
"""The fewest pixels from left to right of a sheet of images."""

CUTS = (4, 7, 10, 16, 19)
"""How long a year is in ISO 8601, a month, a day, a minute, a second."""

_FEW = Image.Quantize.FASTOCTREE  # the one that keeps transparency


def save(figure: Figure, path: Path | str, dpi: int = 150) -> None:
    """Writes a figure as a PNG, beside `path` first and then moved over it; makes its folder."""
    path = Path(path)
    with atomic(path) as beside:
        _draw(figure, beside, dpi=dpi)


def name_ticks(axis: Axis, column: Column, most: int = 4, characters: int = 28) -> int:
    """Sets few ticks within the limits of an axis, of dates with their names.

    Returns the power of ten in which numbers are counted, see :func:`number_ticks`.
    """
    if column.date is None:
        return number_ticks(axis, most, whole=column.step >= 1, characters=characters)
    low, high = sorted(axis.get_view_interval())
    for number in range(min(most, 3), 0, -1):
        places = [x for x in MaxNLocator(number).tick_values(low, high) if low <= x <= high]
        names = shortened([column.date(float(place)) for place in places])
        if sum(len(name) + 2 for name in names) <= characters:
            break
    axis.set_ticks(places, names)
    return 0


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


@dataclass(frozen=True)
class Picture:
    """A picture for a page."""

    uri: str  # a `data:` URI that holds all of it
    width: int  # in pixels of the page; it has twice as many of its own
    height: int
    alt: str  # what it shows, for those who do not see it
    caption: str = ""


def embed(figure: Figure, alt: str, caption: str = "", dpi: int = 180) -> Picture:
    """Draws a figure with a transparent ground and 256 colours, a third of the bytes of all."""
    drawn = io.BytesIO()
    tight = None if figure.get_layout_engine() else "tight"
    _draw(figure, drawn, dpi=dpi, transparent=True, bbox_inches=tight)
    return _picture(Image.open(drawn).quantize(256, method=_FEW), alt, caption)


def embed_pixels(sheet: NDArray[np.float64], alt: str, caption: str = "") -> Picture:
    """Shows a sheet of images as it is, its pixels so large that a small one fills a column."""
    values = np.round(255 * sheet).astype(np.uint8)
    image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    factor = math.ceil(WIDTH / image.width)
    size = image.width * factor, image.height * factor
    return _picture(image.resize(size, Image.Resampling.NEAREST), alt, caption)


def _draw(figure: Figure, file: Path | io.BytesIO, **options: Any) -> None:
    """Writes a figure as a PNG; a letter of a name that no font has is a box, and no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        figure.savefig(file, format="png", **options)


def _picture(image: Image.Image, alt: str, caption: str) -> Picture:
    small = io.BytesIO()
    image.save(small, format="png", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(small.getvalue()).decode("ascii")
    return Picture(uri, image.width // 2, image.height // 2, alt, caption)
