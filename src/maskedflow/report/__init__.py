"""Pictures of a density beside its data, drawn without any global state; and reports.

Every plot draws into the figure or axes that it is given, in the same two colours: data blue,
samples orange. :func:`new_figure` makes a figure with its own canvas and :func:`save` writes it;
:func:`run_picture` puts together the picture of a run.

:func:`write_report` writes a page about any density that a :class:`Subject` describes, and
:func:`run_report` that of a run. A page is a list of sections, and may have a
:class:`Section` of one's own.
"""

from maskedflow.data import independent
from maskedflow.plot.figures import DATA_COLOUR, SAMPLE_COLOUR, new_figure

from .of_run import run_report
from .of_table import table_report
from .page import Page, write_report
from .plots.curves import fan_panel, training_curve
from .plots.figures import save
from .plots.images import image_grid
from .plots.pairs import pair_grid
from .plots.plane import density_on_grid, density_panel, plane_limits, point_panel
from .plots.runs import comparison_picture, forecast_picture, run_picture, samples_picture
from .section import Column, Evidence, Image, Section, Subject
from .sections import SECTIONS

__all__ = [
    "DATA_COLOUR",
    "SAMPLE_COLOUR",
    "SECTIONS",
    "Column",
    "Evidence",
    "Image",
    "Page",
    "Section",
    "Subject",
    "comparison_picture",
    "density_on_grid",
    "density_panel",
    "fan_panel",
    "forecast_picture",
    "image_grid",
    "independent",
    "new_figure",
    "pair_grid",
    "plane_limits",
    "point_panel",
    "run_picture",
    "run_report",
    "samples_picture",
    "save",
    "table_report",
    "training_curve",
    "write_report",
]
