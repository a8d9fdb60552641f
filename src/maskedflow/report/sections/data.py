"""Data and model: what is known of both, what each column is, the training curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from maskedflow.columns import Schema
from maskedflow.columns.identifiers import are_numbered
from maskedflow.plot.figures import new_figure
from maskedflow.report.format import listed, number
from maskedflow.report.plots.curves import losses, training_curve
from maskedflow.report.plots.figures import Picture, embed
from maskedflow.report.section import Evidence, Rows, Section

LOOKED_AT = 10_000
"""The most rows that tell a column that only names them."""


@dataclass(frozen=True)
class Data(Section):
    """What is known of data and model."""

    id, title, place = "data", "Data and model", 10
    notes: Sequence[tuple[str, str]]
    schema: Sequence[tuple[str, str, str]] = ()  # of each column its name, its kind, and why
    history: Sequence[dict[str, Any]] = ()
    unit: str = "row"
    identifiers: Sequence[str] = ()  # columns that only name the rows, and yet have a density

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        """Finds it in what the density brings along."""
        subject = evidence.subject
        rows = evidence.train if len(evidence.train) else evidence.test
        cells = {subject.columns[i].name: rows[:LOOKED_AT, i] for i in subject.numeric}
        found = [] if subject.image else identifiers(cells)
        return cls(subject.notes, subject.schema, subject.history, subject.unit, found)

    @property
    def finding(self) -> str:
        """That columns only name the rows."""
        if not self.identifiers:
            return ""
        verb = "name" if len(self.identifiers) > 1 else "names"
        return (
            f"{listed(self.identifiers)} only {verb} the rows: whole numbers, all different, of"
            " which no other column knows anything. That costs likelihood and teaches nothing;"
            " better leave it out."
        )

    @property
    def curve(self) -> Picture | None:
        """The training curve; None if there is no epoch with a loss."""
        found = losses(self.history)
        if found is None:
            return None
        figure = new_figure(5.2, 2.8)
        training_curve(figure.subplots(), *found, self.unit)
        return embed(
            figure,
            f"Training and validation NLL over {len(self.history):,} epochs; the best of"
            f" validation is {number(np.nanmin(found[1]))} nats per {self.unit}",
        )


def identifiers(cells: Mapping[str, Rows]) -> list[str]:
    """The columns of numbers, shape (n,) each, that only name the rows, as a schema would tell.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> identifiers({"id": rng.permutation(np.arange(400.0)), "age": rng.normal(size=400)})
        ['id']
    """
    whole = {}
    for name, numbers in cells.items():
        x = np.asarray(numbers, np.float64)
        is_whole = np.isfinite(x).all() and (x % 1 == 0).all() and (abs(x) < 2**53).all()
        whole[name] = pa.chunked_array([pa.array(x.astype(np.int64) if is_whole else x)])
    table = pa.table(whole)
    if not any(map(are_numbered, table.columns)):
        return []
    schema = Schema.infer(table, "model")
    return [column.name for column in schema.columns if column.kind == "ignore"]
