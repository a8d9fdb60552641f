"""One self-contained page about a density: the facts of its sections, put into templates."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from maskedflow.data import Fingerprint, Seen, Trace, write_text
from maskedflow.data.fingerprint import unknown
from maskedflow.plot.ticks import signed

from .format import clipped, duration, number, percent
from .section import Evidence, Rows, Section, Subject, Weights
from .sections import SECTIONS

ROWS, NUMBERS, DRAWN = 10_000, 10_000_000, 2_000_000
"""The most test rows, and numbers in them and in samples, that are looked at."""

FAR = 1e30

FRAME = "width: 100%; height: 80vh; border: 1px solid #ccc"

TIMED = 1000
"""Rows whose scoring and sampling is timed."""

MACROS = '{% from "parts.html" import figure, found, matrices, pictures, scroll %}'


@dataclass(frozen=True)
class Page:
    """What a page says.

    A section is the attribute of its id, None where it has nothing to say:
    `page.likelihood.found[0].nll` is the NLL of the density.

    Args:
        name: The density's name.
        sections: Those that have something to say, in order.
        unit: What a test row is: a "row", an "image" or a "step".
        rows: The test rows that were looked at, and those there are.
        given: The columns that the density is conditional on.
        errors: Those of them that are errors of rows, which are as measured.
        seen: What is known of whether the density was trained on the test rows, a sentence or two,
            beyond what the next says.
        new: Whether it is known that it was trained on none of them.
        spoilt: Whether it was trained on so many that they are no test.
        drawn: How many test rows, drawn in proportion to their weights, pictures and tests are of:
            as many as those that were looked at are worth. None if they have no weights.
        scoring: Seconds to score 1,000 test rows.
        sampling: Seconds to draw as many samples.
    """

    name: str
    sections: Sequence[Section]
    unit: str = "row"
    rows: tuple[int, int] = (0, 0)
    given: Sequence[str] = ()
    errors: Sequence[str] = ()
    seen: str = ""
    new: bool = False
    spoilt: bool = False
    drawn: int | None = None
    scoring: float | None = None
    sampling: float | None = None
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%d %B %Y").lstrip("0"))
    version: str = field(default_factory=lambda: version("maskedflow"))

    def __getattr__(self, name: str) -> Any:
        for section in self.__dict__.get("sections", ()):
            if section.id == name:
                return section
        if name in {section.id for section in SECTIONS}:
            return None
        raise AttributeError(f"{name}: expected a section of the page, found none")

    def _repr_html_(self) -> str:
        """In a notebook: the page in a frame, for its styles are its own."""
        page = escape(render(self))
        return f'<iframe srcdoc="{page}" style="{FRAME}"></iframe>'

    @property
    def headline(self) -> list[tuple[str, str, str]]:
        """The figures at the head of the page: a term, a value, a remark."""
        found = [one for section in self.sections for one in section.headline]
        if self.scoring is not None and self.sampling is not None:
            remark = f"to score; {duration(self.sampling)} to sample"
            found.append((f"1,000 {self.unit}s", duration(self.scoring), remark))
        return found


def write_report(
    subject: Subject,
    train: Rows,
    validation: Rows,
    test: Rows,
    path: Path | str,
    *,
    labels: NDArray[np.int64] | None = None,
    weights: Weights = (None, None, None),
    seed: int = 0,
    sections: Sequence[type[Section]] = SECTIONS,
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
        weights: How much each training, validation and test row counts; None where all are alike.
            Means, their errors and baselines go by them. Pictures, distances and tests are of
            test rows drawn in proportion, as many as they are worth.
        seed: Seed of all that is drawn.
        sections: What the page may have, in order; a :class:`Section` of one's own among them.

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
    evidence = Evidence(
        subject,
        train,
        validation,
        test,
        log_prob=subject.log_prob(test),
        samples=_draw(subject, max(len(test), min(most, 2000)), seed),
        labels=None if labels is None else labels[chosen],
        seed=seed,
        weights=(*weights[:2], None if weights[2] is None else weights[2][chosen]),
    )
    generator = torch.Generator().manual_seed(seed + 1)
    page = Page(
        subject.name,
        [one for section in sections if (one := section.of(evidence)) is not None],
        subject.unit,
        (len(test), total),
        [column.name for column in subject.columns[subject.features :]],
        subject.errors,
        **known,
        drawn=None if evidence.weight is None else len(evidence.places),
        scoring=_seconds(lambda: subject.log_prob(test[np.arange(TIMED) % len(test)])),
        sampling=_seconds(lambda: subject.sample(TIMED, generator)),
    )
    write_page(page, path)
    return page


def write_page(page: Page, path: Path | str) -> None:
    """Renders a page, and puts it into its place."""
    write_text(Path(path), render(page))


def render(page: Page) -> str:
    """Puts facts into the templates of their sections: the page as HTML."""
    templates = _templates()
    bodies = []
    for section in page.sections:
        source = section.template or f"{{% include '{section.id}.html' %}}"
        bodies.append(templates.from_string(MACROS + source).render(page=page, facts=section))
    whole = templates.get_template("page.html")
    return whole.render(page=page, bodies=bodies)


def seen_facts(seen: Seen | None, what: str) -> dict[str, Any]:
    """What the page says of whether a density was trained on the test rows, called `what`."""
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
    what = f"{subject.unit}s"
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


def _draw(subject: Subject, n: int, seed: int) -> Rows:
    """At most n samples, fewer of wide rows."""
    n = min(n, max(TIMED, DRAWN // len(subject.columns)))
    generator = torch.Generator().manual_seed(seed)
    blocks = [subject.sample(min(TIMED, n - start), generator) for start in range(0, n, TIMED)]
    # What has overflowed is far away, and no more than that.
    found: Rows = np.nan_to_num(np.concatenate(blocks), nan=np.nan, posinf=FAR, neginf=-FAR)
    return found


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
    written = clipped, duration, number, percent, signed
    found.filters |= {one.__name__: one for one in written}
    return found
