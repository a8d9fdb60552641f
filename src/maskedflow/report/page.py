"""One self-contained page about a density: facts and pictures, put into templates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.data import Fingerprint, Seen, Trace, write_text
from maskedflow.data.fingerprint import unknown

from .curve import training_curve
from .embed import Picture, embed
from .figures import DATA_COLOUR, SAMPLE_COLOUR, new_figure
from .gallery import ClassRow, class_rows, grid_picture, nearest_picture
from .joint import Correlation, corner_columns, corner_picture, correlation_facts
from .latent import Latent, latent_facts
from .likelihood import Likelihoods, likelihoods
from .marginals import Marginal, marginal_facts, marginal_pictures, strays
from .plane import density_on_grid, density_panel, plane_limits, point_panel
from .subject import Column, Rows, Subject
from .twosample import TwoSample, two_sample_test
from .words import duration, number, percent, signed

__all__ = ["Page", "curve_picture", "write_page", "write_report"]

ROWS, NUMBERS = 10_000, 10_000_000
"""The most test rows, and numbers in them, that are looked at."""

PATIENCE = 20.0
"""Seconds after which no more samples are drawn."""

FAR = 1e30

TIMED = 1000
"""Rows whose scoring and sampling is timed."""

EXTREMES, CELLS = 5, 16
"""Rows in a table of extremes, and columns."""

JUDGES = 2_000
"""The most samples that say how rare a row is: scoring may take long."""

UNLIKELY = 0.01
"""The share of samples that are less likely than those rows of which the page tells how many."""


@dataclass(frozen=True)
class Extreme:
    """A test row that is likely, or unlikely.

    Args:
        log_prob: Its log-density in nats.
        tail: The share of samples that are less likely.
        cells: The first cells, as texts.
    """

    log_prob: float
    tail: float
    cells: list[str]


@dataclass(frozen=True)
class Page:
    """Everything that the page says. What is None, or empty, has no section.

    Args:
        name: The density's name.
        notes: What is known of data and model.
        schema: What each column is.
        rows: The test rows that were looked at, and those there are.
        samples: The samples that they are compared with.
        seen: What is known of whether the density was trained on the test rows, a sentence or two,
            beyond what the next says.
        new: Whether it is known that it was trained on none of them.
        spoilt: Whether it was trained on so many that they are no test.
    """

    name: str
    notes: Sequence[tuple[str, str]]
    schema: Sequence[tuple[str, str, str]] = ()
    rows: tuple[int, int] = (0, 0)
    samples: int = 0
    seen: str = ""
    new: bool = False
    spoilt: bool = False
    curve: Picture | None = None
    likelihoods: Likelihoods | None = None
    given: list[str] = field(default_factory=list)
    images: bool = False
    plane: list[Picture] = field(default_factory=list)
    corner: Picture | None = None
    corner_columns: int = 0
    columns: int = 0
    numeric: int = 0
    gallery: list[Picture] = field(default_factory=list)
    nearest: Picture | None = None
    classes: list[ClassRow] = field(default_factory=list)
    marginals: list[Marginal] = field(default_factory=list)
    marginal_pictures: list[Picture] = field(default_factory=list)
    missing: bool = False
    atoms: bool = False
    strays: int = 0
    correlation: Correlation | None = None
    latent: Latent | None = None
    two_sample: TwoSample | None = None
    extreme_columns: list[str] = field(default_factory=list)
    unlikely: float = 0.0
    least: list[Extreme] = field(default_factory=list)
    most: list[Extreme] = field(default_factory=list)
    extreme_pictures: list[Picture] = field(default_factory=list)
    scoring: float | None = None
    sampling: float | None = None
    forecasts: Picture | None = None
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%d %B %Y").lstrip("0"))
    version: str = field(default_factory=lambda: version("maskedflow"))


def write_report(
    subject: Subject,
    train: Rows,
    validation: Rows,
    test: Rows,
    path: Path | str,
    *,
    labels: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Page:
    """Writes a page about a density, beside `path` first and then moved over it.

    Of a large test set at most 10,000 rows are looked at, chosen by the seed.

    Args:
        subject: The density.
        train: The rows it was trained on, as far as is known. Other densities are fitted to them.
        validation: Rows to choose baselines by.
        test: The rows it is judged by.
        path: File to write.
        labels: A class from 0 on for each test row, if there are classes.
        seed: Seed of all that is drawn.

    Returns:
        What the page says.

    Raises:
        ValueError: If there are no test rows.
    """
    if not len(test):
        raise ValueError(f"test: {subject.name} has no test rows to report on")
    rng = np.random.default_rng(seed)
    most = min(ROWS, max(TIMED, NUMBERS // len(subject.columns)))
    known = _seen(subject, train, test)
    chosen = np.sort(rng.permutation(len(test))[:most])
    total, test = len(test), test[chosen]
    log_prob = subject.log_prob(test)
    samples = _draw(subject, max(len(test), min(most, 2000)), seed)
    likelihood = likelihoods(subject, log_prob, train, validation, test, seed)
    facts: dict[str, Any] = {
        **known,
        "rows": (len(test), total),
        "columns": len(subject.columns),
        "numeric": len(subject.numeric),
        "samples": len(samples),
        "curve": curve_picture(subject.history),
        "likelihoods": likelihood,
        "given": [column.name for column in subject.columns[subject.features :]],
        "two_sample": two_sample_test(subject, test, samples, seed),
        "latent": subject.latent and latent_facts(subject.latent(test), subject.residuals),
        "scoring": _seconds(lambda: subject.log_prob(_exactly(test, TIMED))),
        "sampling": _seconds(
            lambda: subject.sample(TIMED, torch.Generator().manual_seed(seed + 1))
        ),
    }
    if subject.image is not None:
        kept = None if labels is None else labels[chosen]
        facts |= _image_facts(subject, train, test, samples, log_prob, kept)
    else:
        facts |= _table_facts(subject, test, samples, log_prob)
    page = Page(subject.name, subject.notes, subject.schema, **facts)
    write_page(page, Path(path))
    return page


def seen_facts(seen: Seen | None, what: str) -> dict[str, Any]:
    """What the page says of whether a density was trained on the test rows.

    Args:
        seen: What is known of it, if anything is.
        what: What the rows are called.
    """
    text = str(seen or unknown(what))
    new = seen is not None and seen.new
    plain = seen is not None and new and seen.told == seen.rows and not seen.validated
    return {
        "seen": "" if plain else f"{text[0].upper()}{text[1:]}.",
        "new": new,
        "spoilt": seen is not None and seen.spoilt,
    }


def _seen(subject: Subject, train: Rows, test: Rows) -> dict[str, Any]:
    """The same, from what the density knows of its rows and from those that are handed over."""
    what = "rows" if subject.image is None else "images"
    seen = None if subject.seen is None else subject.seen(test)
    if not len(train):
        return seen_facts(seen, what)
    columns, others = ([np.asarray(x, np.float32) for x in rows.T] for rows in (train, test))
    fingerprint = Fingerprint.of(columns, [columns[i] for i in subject.numeric])
    given = Trace(fingerprint).seen(others, what)
    if given.trained and (seen is None or not (seen.known or seen.trained)):
        return seen_facts(given, what)
    found = seen_facts(seen, what)
    if given.trained and found["new"]:
        found["seen"] += f" Other densities were fitted to {given.trained:,} of them."
    elif given.new and not found["new"] and not (seen and seen.trained):
        found["seen"] += f" None is among the {len(train):,} training {what} that were given."
    return found


def write_page(page: Page, path: Path) -> None:
    """Puts facts into the template, and the page into its place."""
    text = _templates().get_template("page.html").render(page=page)
    write_text(path, text)


def curve_picture(history: Sequence[dict[str, Any]]) -> Picture | None:
    """The training curve; None if there is no epoch with a loss."""
    train, validation = (
        [math.nan if record[key] is None else record[key] for record in history]
        for key in ("train_nll", "validation_nll")
    )
    if not np.isfinite(validation).any():
        return None
    figure = new_figure(5.2, 2.8)
    training_curve(figure.subplots(), train, validation)
    return embed(
        figure,
        f"Training and validation NLL over {len(history)} epochs; the best of validation is"
        f" {np.nanmin(validation):.4g} nats",
    )


def _image_facts(
    subject: Subject,
    train: Rows,
    test: Rows,
    samples: Rows,
    log_prob: NDArray[np.float64],
    labels: NDArray[np.int64] | None,
) -> dict[str, Any]:
    image = subject.image
    assert image is not None
    x = slice(0, subject.features)
    names = [str(code) for code in range(0 if labels is None else int(labels.max()) + 1)]
    order = np.argsort(log_prob)

    def grid(rows: Rows, what: str) -> Picture:
        return grid_picture(
            image, rows[:64, x], f"{len(rows[:64])} {what} in a grid", what.capitalize() + "."
        )

    return {
        "images": True,
        "gallery": [grid(test, "test images"), grid(samples, "samples")],
        "nearest": nearest_picture(image, train[:, x], samples[:, x]),
        "classes": [] if labels is None else class_rows(log_prob, labels, names, subject.features),
        "extreme_pictures": [
            grid(test[order[::-1][:16]], "most likely test images"),
            grid(test[order[:16]], "least likely test images"),
        ],
    }


def _table_facts(
    subject: Subject, test: Rows, samples: Rows, log_prob: NDArray[np.float64]
) -> dict[str, Any]:
    marginals = marginal_facts(subject, test, samples)
    names = [column.name for column in subject.columns]
    order = np.argsort(log_prob)
    drawn = np.sort(np.nan_to_num(subject.log_prob(samples[:JUDGES]), nan=-np.inf, neginf=-np.inf))
    tail = np.searchsorted(drawn, log_prob) / len(drawn)

    def extremes(places: NDArray[np.int64]) -> list[Extreme]:
        return [
            Extreme(float(log_prob[i]), float(tail[i]), _cells(subject, test[i])) for i in places
        ]

    columns = corner_columns(subject, test)
    found: dict[str, Any] = {
        "marginals": marginals,
        "missing": any(any(one.missing) for one in marginals),
        "atoms": any(one.atoms for one in marginals),
        "marginal_pictures": marginal_pictures(subject, marginals, test, samples),
        "strays": strays(subject, test, samples) if subject.numeric else 0,
        "correlation": correlation_facts(subject, test, samples),
        "extreme_columns": names[:CELLS],
        "most": extremes(order[::-1][:EXTREMES]),
        "least": extremes(order[:EXTREMES]),
        "unlikely": float((tail < UNLIKELY).mean()),
    }
    plain = all(map(_is_plain, subject.columns)) and bool(np.isfinite(test).all())
    if len(names) == 2 and plain and not subject.given:
        found["plane"] = _plane(subject, test, samples)
    elif len(columns) > 1:  # one alone is among the marginals
        found["corner"] = corner_picture(subject, columns, test, samples)
        found["corner_columns"] = len(columns)
    return found


def _is_plain(column: Column) -> bool:
    """Whether cells can be any number."""
    return not (column.levels or column.step or column.atoms or column.date)


def _plane(subject: Subject, test: Rows, samples: Rows) -> list[Picture]:
    """Data, density and samples of two features."""
    names = [column.name for column in subject.columns]
    limits = plane_limits(test)

    def log_prob(points: Tensor) -> Tensor:
        return torch.from_numpy(subject.log_prob(points.double().numpy()))

    grid = density_on_grid(log_prob, limits, 160)
    found = []
    for title in ("data", "density", "samples"):
        figure = new_figure(3.4, 3.2)
        axes = figure.subplots()
        if title == "density":
            density_panel(axes, grid, limits, names=names)
        else:
            rows, colour = (test, DATA_COLOUR) if title == "data" else (samples, SAMPLE_COLOUR)
            point_panel(axes, rows[:3000], limits, colour=colour, names=names)
        axes.tick_params(labelsize=8)
        shown = "Density" if title == "density" else f"{min(len(test), 3000):,} {title}"
        alt = f"{shown} in the plane of {' and '.join(names)}"
        found.append(embed(figure, alt, title.capitalize() + "."))
    return found


def _cells(subject: Subject, row: Rows) -> list[str]:
    pairs = list(zip(subject.columns, row.tolist(), strict=True))[:CELLS]
    return [column.text(cell) for column, cell in pairs]


def _draw(subject: Subject, n: int, seed: int) -> Rows:
    """At most n samples, fewer if they take too long."""
    generator = torch.Generator().manual_seed(seed)
    blocks: list[Rows] = []
    start = time.monotonic()
    while n > 0 and (not blocks or time.monotonic() - start < PATIENCE):
        blocks.append(subject.sample(min(n, TIMED), generator))
        n -= len(blocks[-1])
    # What has overflowed is far away, and no more than that.
    found: Rows = np.nan_to_num(np.concatenate(blocks), nan=np.nan, posinf=FAR, neginf=-FAR)
    return found


def _exactly(rows: Rows, n: int) -> Rows:
    return rows[np.arange(n) % len(rows)]


def _seconds(f: Callable[[], object]) -> float:
    """The shortest of three wall times, or of one if that is long."""
    times: list[float] = []
    while len(times) < 3 and sum(times) < 2:
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return min(times)


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("maskedflow.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": number, "duration": duration, "percent": percent, "signed": signed}
    return found
