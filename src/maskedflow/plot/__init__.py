"""Pictures in one line, of whatever has samples or a density.

:func:`corner` draws all columns and pairs of them, :func:`density` one or two exactly. They take a
flow, a distribution, a posterior, an estimator, a run, or samples, and return axes of matplotlib.
:func:`ranks`, :func:`coverage` and :func:`predictive` draw what :mod:`maskedflow.inference` finds
out about posteriors. The model is orange, data are blue, as in reports.
"""

from .calibration import coverage, predictive, ranks
from .corners import corner
from .densities import density

__all__ = ["corner", "coverage", "density", "predictive", "ranks"]
