"""The sections of a page, a module each.

To add one, write its module and its template, and name it here.
"""

from __future__ import annotations

from pkgutil import resolve_name

from maskedflow.report.section import Section

SECTIONS: tuple[type[Section], ...] = tuple(
    resolve_name(f"{__name__}.{name}")
    for name in (
        "data:Data",
        "likelihood:Likelihoods",
        "samples:Forecasts",
        "samples:Samples",
        "columns:Columns",
        "correlations:Correlation",
        "latent:Latent",
        "two_sample:TwoSample",
        "extremes:Extremes",
    )
)
"""What pages have, in order."""
