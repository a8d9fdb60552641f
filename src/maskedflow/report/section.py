"""What a page is about, a density and rows, and what it is made of, sections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedflow.data import Seen
from maskedflow.data.split import effective
from maskedflow.plot.ticks import signed

from .format import number

Rows = NDArray[Any]
"""Rows of a table, shape (n, columns); NaN where a cell is missing."""

Weight = NDArray[np.float64] | None
"""How much each of some rows counts, shape (n,); None if all are alike."""

Weights = tuple[Weight, Weight, Weight]
"""Those of training, validation and test rows."""


@dataclass(frozen=True)
class Column:
    """A column of the rows.

    Args:
        name: Its name.
        levels: The names of its categories, of which the cells are the numbers; none of a number.
        ordered: That the categories are in an order, so that their numbers can correlate.
        step: The step of the grid that its numbers are on, 0 if there is none. The log-density of
            such a number is that of its probability over the step.
        atoms: Numbers that have a probability of their own.
        date: Writes a cell that is a date or a time, as ISO 8601 does; None of other numbers.

    Example:
        >>> Column("colour", ("red", "green")).text(1.0), Column("paid", step=0.01).text(12195.5)
        ('green', '12,195.5')
    """

    name: str
    levels: tuple[str, ...] = ()
    ordered: bool = False
    step: float = 0.0
    atoms: tuple[float, ...] = ()
    date: Callable[[float], str] | None = None

    def text(self, cell: float) -> str:
        """Writes a cell as a text."""
        if math.isnan(cell):
            return "—"
        if self.levels:
            return self.levels[int(cell)]
        if self.date is not None:
            return self.date(cell)
        return signed(f"{cell:,.10g}") if self.step else number(cell)

    def at_atoms(self, cells: Rows) -> NDArray[np.bool_]:
        """Which cells are at an atom."""
        found: NDArray[np.bool_] = np.isin(cells, self.atoms)
        return found


Baseline = Callable[[Rows, Rows, Weight], NDArray[np.float64]]
"""The log-density of test rows, from training rows, test rows and weights of the former."""


@dataclass(frozen=True)
class Image:
    """That the rows are images.

    Args:
        shape: (channels, height, width).
        levels: The number of values of a pixel.
    """

    shape: tuple[int, int, int]
    levels: int


@dataclass(frozen=True)
class Subject:
    """A density, for :func:`maskedflow.report.write_report`.

    Args:
        name: What it is called.
        columns: The columns of the rows, those that it is conditional on last.
        log_prob: Computes log p of each row in nats, shape (n, columns) -> (n,).
        sample: Draws n rows; of a conditional density, the given columns come from the data.
        given: The number of columns that it is conditional on.
        errors: Those of them, the last ones, that are errors of rows, which are as measured.
        latent: Computes the random numbers that the density believes are behind each row,
            independent and N(0, 1); shape (n, columns) -> (n, numbers), NaN where there is none
            behind a missing cell. None if it has none.
        residuals: The names of these numbers, where each is that of a column, given others.
        unbounded: Makes rows continuous and unbounded, for a Gaussian to be fitted, with the
            log-determinant of doing so: (rows, seed) -> (rows, (n,)). None if they are already.
        baselines: Names, and functions of training rows, test rows and weights of the former that
            compute the log-density of test rows in the same units: what else it is compared with,
            where columns are mixed.
        gaussian: The same of a Gaussian, where the full one of the columns would not do.
        notes: What is known of data and model, as pairs of a word and a text.
        schema: What each column is, as its name, what it is taken for, and why.
        history: One record an epoch, with `train_nll` and `validation_nll`.
        image: That the rows are images.
        seen: Recognises rows that it was trained on; its answer, or itself, is None if it cannot.
        fitted: The number of rows it was trained on, if that is known.

    Example:
        >>> coin = Subject(
        ...     "coin",
        ...     (Column("side", ("heads", "tails")),),
        ...     log_prob=lambda rows: np.full(len(rows), -np.log(2)),
        ...     sample=lambda n, g: torch.randint(2, (n, 1), generator=g).numpy(),
        ... )
        >>> coin.numeric
        []
    """

    name: str
    columns: tuple[Column, ...]
    log_prob: Callable[[Rows], NDArray[np.float64]]
    sample: Callable[[int, torch.Generator], Rows]
    given: int = 0
    errors: Sequence[str] = ()
    latent: Callable[[Rows], NDArray[np.float64]] | None = None
    unbounded: Callable[[Rows, int], tuple[Rows, NDArray[np.float64]]] | None = None
    residuals: Sequence[str] = ()
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    gaussian: tuple[str, Baseline] | None = None
    notes: Sequence[tuple[str, str]] = ()
    schema: Sequence[tuple[str, str, str]] = ()
    history: Sequence[dict[str, Any]] = ()
    image: Image | None = None
    seen: Callable[[Rows], Seen | None] | None = None
    fitted: int | None = None

    @property
    def unit(self) -> str:
        """What a row is."""
        return "row" if self.image is None else "image"

    @property
    def features(self) -> int:
        """The number of columns that the density is of."""
        return len(self.columns) - self.given

    @property
    def numeric(self) -> list[int]:
        """Which columns hold numbers."""
        return [i for i, column in enumerate(self.columns) if not column.levels]


@dataclass(frozen=True)
class Evidence:
    """What there is to say something from.

    Args:
        subject: The density.
        train: The rows it was trained on, as far as is known.
        validation: Rows to choose baselines by.
        test: The rows it is judged by.
        weights: How much each row of these three counts; None if all are alike.
        log_prob: Their log-density in nats, shape (n,).
        samples: Rows drawn from the density.
        labels: The class of each test row, if there are classes.
        seed: Seed of all that is drawn.
    """

    subject: Subject
    train: Rows
    validation: Rows
    test: Rows
    log_prob: NDArray[np.float64]
    samples: Rows
    labels: NDArray[np.int64] | None = None
    seed: int = 0
    weights: Weights = (None, None, None)

    @property
    def weight(self) -> NDArray[np.float64] | None:
        """How much each test row counts."""
        return self.weights[2]

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """The places of the test rows that pictures and tests look at, see :func:`proportional`."""
        if self.weight is None:
            return np.arange(len(self.test))
        return proportional(self.weight, self.seed)

    @property
    def data(self) -> Rows:
        """These rows: all, or some that stand for rows of different weights."""
        return self.test if self.weight is None else self.test[self.places]


def chosen_rows(n: int, rows: int, weight: Weight, generator: torch.Generator) -> Tensor:
    """Draws the places of n rows, independent, each as often as it counts."""
    if weight is None:
        return torch.randint(rows, (n,), generator=generator)
    return torch.multinomial(torch.from_numpy(weight), n, replacement=True, generator=generator)


def proportional(weight: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    r"""Draws rows in proportion to their weights, as many as they are worth, evenly spaced.

    A row is drawn :math:`\lfloor n w_i \rfloor` or one more times, with weights whose sum is 1.

    References:
        Monte Carlo Filter and Smoother for Non-Gaussian Nonlinear State Space Models (Kitagawa,
        1996), appendix: systematic resampling

    Example:
        >>> proportional(np.array([2.0, 0.0, 1.0, 1.0, 0.0, 2.0]), seed=0)
        array([0, 2, 3, 5])
    """
    number = max(1, round(effective(torch.from_numpy(weight))))
    start = np.random.default_rng(seed).random()
    ends = np.cumsum(weight)
    found = np.searchsorted(ends, (start + np.arange(number)) / number * ends[-1], side="right")
    last = int(np.flatnonzero(weight)[-1])
    places: NDArray[np.int64] = np.minimum(found, last)
    return places


class Section:
    """A section of a page: a dataclass of facts, which a template puts into words and pictures.

    Attributes:
        id: Its anchor, and the attribute of a :class:`Page` that holds it.
        title: What the navigation calls it.
        place: Where it is on the page, among the others from 10 to 90; behind them, if not said.
        template: Jinja source, which knows the `page`, the section as `facts`, and the macros of
            `templates/parts.html`. If empty, it is the file `<id>.html` among the templates.

    Example:
        A section of one's own, `write_report(..., sections=(*SECTIONS, Worst))`:

        >>> @dataclass(frozen=True)
        ... class Worst(Section):
        ...     id, title = "worst", "The worst row"
        ...     template = "<h2>The worst row</h2><p>Its log p is {{ facts.log_prob|number }}.</p>"
        ...     log_prob: float
        ...
        ...     @classmethod
        ...     def of(cls, evidence):
        ...         return cls(float(evidence.log_prob.min()))
    """

    id: ClassVar[str]
    title: ClassVar[str]
    place: ClassVar[int] = 100
    template: ClassVar[str] = ""

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        """Finds what the section says; None if that is nothing."""
        return None

    @property
    def finding(self) -> str:
        """What was found and how sure that is, in a sentence or two; nothing of what is no test."""
        return ""

    @property
    def headline(self) -> Sequence[tuple[str, str, str]]:
        """Figures for the head of the page, each a term, a value and a remark."""
        return ()
