"""Figures inside of a page, as text."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Picture", "embed", "embed_pixels"]

WIDTH = 600
"""The fewest pixels from left to right of a sheet of images."""

_FEW = Image.Quantize.FASTOCTREE  # the one that keeps transparency


@dataclass(frozen=True)
class Picture:
    """A picture for a page.

    Args:
        uri: A ``data:`` URI that holds all of it.
        width: Its width in pixels of the page; it has twice as many of its own.
        height: Likewise.
        alt: What it shows, for those who do not see it.
        caption: What is written below it.
    """

    uri: str
    width: int
    height: int
    alt: str
    caption: str = ""


def embed(figure: Figure, alt: str, caption: str = "", dpi: int = 180) -> Picture:
    """Draws a figure with a transparent ground and 256 colours, a third of the bytes of them all.

    Example:
        >>> from .figures import new_figure
        >>> picture = embed(new_figure(2, 1), "nothing")
        >>> picture.uri[:30], picture.width, picture.height
        ('data:image/png;base64,iVBORw0K', 180, 90)
    """
    drawn = io.BytesIO()
    tight = None if figure.get_layout_engine() else "tight"
    figure.savefig(drawn, format="png", dpi=dpi, transparent=True, bbox_inches=tight)
    return _picture(Image.open(drawn).quantize(256, method=_FEW), alt, caption)


def embed_pixels(sheet: NDArray[np.float64], alt: str, caption: str = "") -> Picture:
    """An image as it is, each of its pixels so large that a sheet of small ones fills a column.

    Args:
        sheet: Values from 0 to 1, shape (height, width, 1 or 3).
        alt: What it shows.
        caption: What is written below it.
    """
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
