"""What a page is made of: sections, and the rows that they are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from .subject import Rows, Subject


@dataclass(frozen=True)
class Evidence:
    """What there is to say something from.

    Args:
        subject: The density.
        train: The rows it was trained on, as far as is known.
        validation: Rows to choose baselines by.
        test: The rows it is judged by.
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


class Section:
    """A section of a page: a dataclass of facts, which a template puts into words and pictures.

    Attributes:
        id: Its anchor, and the attribute of a :class:`Page` that holds it.
        title: What the navigation calls it.
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
    template: ClassVar[str] = ""

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        """Finds what the section says; None if that is nothing."""
        return None

    @property
    def headline(self) -> Sequence[tuple[str, str, str]]:
        """Figures for the head of the page, each a term, a value and a remark."""
        return ()
