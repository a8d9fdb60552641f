"""Images: samples, their nearest training images, and how likely each class is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from maskedflow.runs import Mean

from .embed import Picture, embed_pixels
from .images import tile
from .subject import Image, Rows

__all__ = ["ClassRow", "class_rows", "grid_picture", "nearest", "nearest_picture"]

SIDE = 8
"""Images in a row of a grid."""

SHOWN, NEIGHBOURS = 8, 3
"""Samples beside training images, and how many of these each has."""


@dataclass(frozen=True)
class ClassRow:
    """How likely the test images of a class are.

    Args:
        label: The class.
        rows: The number of its test images.
        nll: Their mean NLL in nats.
        bpd: The same in bits a dimension.
    """

    label: str
    rows: int
    nll: Mean
    bpd: Mean


def class_rows(
    log_prob: NDArray[np.float64], labels: NDArray[np.int64], names: Sequence[str], features: int
) -> list[ClassRow]:
    """The NLL of each class that has test images.

    Example:
        >>> rows = class_rows(np.array([-1.0, -3.0, -5.0]), np.array([0, 0, 2]), "abc", 1)
        >>> [(row.label, row.rows, row.nll.value) for row in rows]
        [('a', 2, 2.0), ('c', 1, 5.0)]
    """
    found = []
    for code in np.unique(labels).tolist():
        nll = Mean.of(torch.from_numpy(-log_prob[labels == code]))
        bpd = nll.scaled(1 / (features * math.log(2)))
        found.append(ClassRow(names[code], int((labels == code).sum()), nll, bpd))
    return found


def grid_picture(
    image: Image, rows: Rows, alt: str, caption: str = "", side: int = SIDE
) -> Picture:
    """Images in a grid."""
    return embed_pixels(tile(_pixels(image, rows), side), alt, caption)


def nearest(train: Rows, samples: Rows, number: int = NEIGHBOURS) -> NDArray[np.int64]:
    """Which training rows are nearest to each sample, in Euclidean distance; (samples, number).

    Example:
        >>> nearest(np.array([[0.0], [5.0], [9.0]]), np.array([[6.0]]), 2).tolist()
        [[1, 2]]
    """
    number = min(number, len(train))
    wanted = torch.tensor(samples, dtype=torch.float32)
    apart = torch.cat(
        [
            torch.cdist(wanted, torch.tensor(train[start : start + 10_000], dtype=torch.float32))
            for start in range(0, len(train), 10_000)
        ],
        1,
    )
    found: NDArray[np.int64] = apart.topk(number, largest=False).indices.numpy()
    return found


def nearest_picture(image: Image, train: Rows, samples: Rows) -> Picture:
    """Some samples, each above the training images that are nearest to it."""
    samples = samples[:SHOWN]
    indices = nearest(train, samples)
    rows = np.concatenate([samples, *(train[column] for column in indices.T)])
    return grid_picture(
        image,
        rows,
        f"{len(samples)} samples, and below each the {indices.shape[1]} training images that are"
        " nearest to it",
        side=len(samples),
    )


def _pixels(image: Image, rows: Rows) -> NDArray[np.float64]:
    scaled = np.clip(np.asarray(rows, np.float64) / (image.levels - 1), 0, 1)
    return scaled.reshape(len(rows), *image.shape)
