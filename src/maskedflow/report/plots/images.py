"""A grid of images."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray


def scaled(rows: ArrayLike, shape: tuple[int, int, int], levels: float) -> NDArray[np.float64]:
    """Images of values from 0 to 1, shape (n, channels, height, width), of rows of pixels."""
    pixels = np.asarray(rows, dtype=np.float64)
    return np.clip(pixels / (levels - 1), 0.0, 1.0).reshape(len(pixels), *shape)


def tile(images: NDArray[np.float64], columns: int, gap: int = 1) -> NDArray[np.float64]:
    """Lays images, shape (n, channels, height, width), out on a white sheet with gaps between."""
    n, channels, height, width = images.shape
    rows = math.ceil(n / columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, channels))
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return sheet


def image_grid(
    axes: Axes,
    images: ArrayLike,
    shape: tuple[int, int, int],
    *,
    levels: float = 256,
    title: str | None = None,
) -> None:
    """Draws images in a grid as near to a square as their number allows.

    Args:
        axes: Where to draw.
        images: Pixel values 0 to `levels - 1`, shape (n, channels * height * width).
        shape: (channels, height, width) of one image; 1 channel is grey, 3 are red, green and blue.
        levels: Number of grey levels; a pixel of `levels - 1` is white.
        title: Written above the grid.

    Raises:
        ValueError: If a row of `images` does not have as many values as `shape`.
    """
    pixels = np.asarray(images, dtype=np.float64)
    if pixels.ndim != 2 or pixels.shape[1] != math.prod(shape):
        raise ValueError(
            f"images: expected rows of {math.prod(shape)} pixels, as {shape} has, found shape"
            f" {pixels.shape}"
        )
    sheet = tile(scaled(pixels, shape, levels), columns=math.ceil(math.sqrt(len(pixels))))
    if shape[0] == 1:
        axes.imshow(sheet[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(sheet, interpolation="nearest")
    axes.set_axis_off()
    if title:
        axes.set_title(title)
