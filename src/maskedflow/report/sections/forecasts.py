"""Forecasts of a time series' test steps."""

from __future__ import annotations

from dataclasses import dataclass

from maskedflow.report.plots.figures import Picture
from maskedflow.report.section import Evidence, Section


@dataclass(frozen=True)
class Forecasts(Section):
    """Forecasts beside what came, which only the page of a time series has.

    Args:
        picture: Intervals around the median, and what came.
    """

    id, title = "forecasts", "Forecasts"
    picture: Picture

    @classmethod
    def of(cls, evidence: Evidence) -> None:
        """Finds nothing: rows have no order."""
