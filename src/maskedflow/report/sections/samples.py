"""Samples beside data: grids of images, the plane, a corner plot, forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from maskedflow.plot.figures import new_figure
from maskedflow.report.plots.figures import Picture, embed, embed_pixels
from maskedflow.report.plots.images import scaled, tile
from maskedflow.report.plots.plane import plane_panels
from maskedflow.report.section import Evidence, Image, Rows, Section, Subject

from .corner import corner_columns, corner_picture

POINTS = 3000
"""The most points in the plane."""

SIDE, GRID = 8, 64
"""Images in a row of a grid, and in a grid."""

SHOWN, NEIGHBOURS = 8, 3
"""Samples beside training images, and how many of these each has."""


@dataclass(frozen=True)
class Samples(Section):
    """Samples beside data, as one of three kinds of pictures."""

    id, title, place = "samples", "Samples", 40
    number: int
    pictures: Sequence[Picture] = ()  # images, or data, density and samples of two numbers
    nearest: Picture | None = None  # samples, and the training images nearest to them
    corner: Picture | None = None  # of other tables
    remark: str = ""  # which columns it shows, if not all

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        """Draws what suits the rows; None if that is nothing."""
        subject, test, samples = evidence.subject, evidence.data, evidence.samples
        if (image := subject.image) is not None:
            train, *parts = (x[:, : subject.features] for x in (evidence.train, test, samples))
            grids = map(image_picture, (image, image), parts, ("test images", "samples"))
            near = _nearest_picture(image, train, parts[1]) if len(train) else None
            return cls(len(samples), list(grids), near)
        if _is_plane(subject, test):
            return cls(len(samples), _plane(evidence))
        shown = corner_columns(subject, test)
        corner = corner_picture(subject, shown, test, samples) if len(shown) > 1 else None
        if corner is None:
            return None
        remark, n, numeric = "", len(shown), len(subject.numeric)
        if n < numeric:
            which = f"the {n} of {numeric} columns of numbers that correlate most with another"
            remark = f"Shown are {which}."
        elif n < len(subject.columns):
            remark = "Shown are the columns of numbers."
        return cls(len(samples), corner=corner, remark=remark)


@dataclass(frozen=True)
class Forecasts(Section):
    """Forecasts beside what came, which only the page of a time series has."""

    id, title, place = "forecasts", "Forecasts", 30
    picture: Picture


def _is_plane(subject: Subject, test: Rows) -> bool:
    """Whether rows are two numbers that can be any."""
    plain = not any(c.levels or c.step or c.atoms or c.date for c in subject.columns)
    two = subject.features == len(subject.columns) == 2
    return two and plain and bool(np.isfinite(test).all())


def _plane(evidence: Evidence) -> list[Picture]:
    subject = evidence.subject
    names = [column.name for column in subject.columns]

    def log_prob(points: Tensor) -> Tensor:
        return torch.from_numpy(subject.log_prob(points.double().numpy()))

    figures = [new_figure(3.4, 3.2) for _ in range(3)]
    panels = [figure.subplots() for figure in figures]
    rows = evidence.data, evidence.samples
    plane_panels(panels, *rows, log_prob, names, cells=160, most=POINTS)
    found = []
    for figure, title in zip(figures, ("data", "density", "samples"), strict=True):
        figure.axes[0].tick_params(labelsize=8)
        shown = f"{min(len(evidence.data), POINTS):,} {title}" if title != "density" else "Density"
        alt = f"{shown} in the plane of {' and '.join(names)}"
        found.append(embed(figure, alt, title.capitalize() + "."))
    return found


def image_picture(image: Image, rows: Rows, what: str) -> Picture:
    """Draws the first images of some in a grid."""
    sheet = tile(scaled(rows[:GRID], image.shape, image.levels), SIDE)
    return embed_pixels(sheet, f"{len(rows[:GRID])} {what} in a grid", what.capitalize() + ".")


def _nearest_picture(image: Image, train: Rows, samples: Rows) -> Picture:
    """Draws some samples, each above the training images that are nearest to it."""
    samples = samples[:SHOWN]
    neighbours = nearest(train, samples, min(NEIGHBOURS, len(train)))
    rows = np.concatenate([samples, *(train[column] for column in neighbours.T)])
    alt = (
        f"{len(samples)} samples, and below each the {neighbours.shape[1]} training images that"
        " are nearest to it"
    )
    return embed_pixels(tile(scaled(rows, image.shape, image.levels), len(samples)), alt)


def nearest(train: Rows, samples: Rows, number: int) -> NDArray[np.int64]:
    """Which training rows are nearest to each sample, in Euclidean distance; (samples, number)."""
    search = NearestNeighbors(n_neighbors=number).fit(train.astype(np.float32))
    found: NDArray[np.int64] = search.kneighbors(samples.astype(np.float32), return_distance=False)
    return found
