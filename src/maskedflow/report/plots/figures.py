"""Pictures of a report: written to a file, or put into a page; and ticks that are dates."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from maskedflow.files import atomic
from maskedflow.report.section import Column

WIDTH = 600
"""The fewest pixels from left to right of a sheet of images."""

CUTS = (4, 7, 10, 16, 19)
"""How long a year is in ISO 8601, a month, a day, a minute, a second."""

_FEW = Image.Quantize.FASTOCTREE  # the one that keeps transparency


def save(figure: Figure, path: Path | str, dpi: int = 150) -> None:
    """Writes a figure as a PNG, beside `path` first and then moved over it; makes its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as beside:
        figure.savefig(beside, format="png", dpi=dpi)


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


def matrix_panel(axes: Axes, values: ArrayLike, bound: float) -> None:
    """Draws a matrix, blue from -`bound` and red to `bound`, with its scale beside it."""
    image = axes.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
    axes.figure.colorbar(image, ax=axes).ax.tick_params(labelsize=8)


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
    figure.savefig(drawn, format="png", dpi=dpi, transparent=True, bbox_inches=tight)
    return _picture(Image.open(drawn).quantize(256, method=_FEW), alt, caption)


def embed_pixels(sheet: NDArray[np.float64], alt: str, caption: str = "") -> Picture:
    """Shows a sheet of images as it is, its pixels so large that a small one fills a column."""
    values = np.round(255 * sheet).astype(np.uint8)
    image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    factor = math.ceil(WIDTH / image.width)
    size = image.width * factor, image.height * factor
    return _picture(image.resize(size, Image.Resampling.NEAREST), alt, caption)


def _picture(image: Image.Image, alt: str, caption: str) -> Picture:
    small = io.BytesIO()
    image.save(small, format="png", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(small.getvalue()).decode("ascii")
    return Picture(uri, image.width // 2, image.height // 2, alt, caption)
