"""Data and model: what is known of both, what each column is, the training curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from maskedflow.plot.figures import new_figure
from maskedflow.report.plots.curves import losses, training_curve
from maskedflow.report.plots.figures import Picture, embed
from maskedflow.report.section import Evidence, Section


@dataclass(frozen=True)
class Data(Section):
    """What is known of data and model."""

    id, title, place = "data", "Data and model", 10
    notes: Sequence[tuple[str, str]]
    schema: Sequence[tuple[str, str, str]] = ()  # of each column its name, its kind, and why
    history: Sequence[dict[str, Any]] = ()

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        """Finds it in what the density brings along."""
        subject = evidence.subject
        return cls(subject.notes, subject.schema, subject.history)

    @property
    def curve(self) -> Picture | None:
        """The training curve; None if there is no epoch with a loss."""
        found = losses(self.history)
        if found is None:
            return None
        figure = new_figure(5.2, 2.8)
        training_curve(figure.subplots(), *found)
        return embed(
            figure,
            f"Training and validation NLL over {len(self.history)} epochs; the best of validation"
            f" is {np.nanmin(found[1]):.4g} nats",
        )
