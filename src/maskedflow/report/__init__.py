"""Pictures of a density beside its data, drawn without any global state.

Every plot draws into the figure or axes that it is given, in the same two colours: data blue,
samples orange. :func:`new_figure` makes a figure with its own canvas and :func:`save` writes it;
:func:`run_picture` puts together the picture of a run.
"""

from .curve import training_curve
from .fan import fan_panel
from .figures import DATA_COLOUR, SAMPLE_COLOUR, new_figure, save
from .forecasts import forecast_picture
from .images import image_grid
from .pairs import pair_grid
from .picture import run_picture, samples_picture
from .plane import density_on_grid, density_panel, plane_limits, point_panel

__all__ = [
    "DATA_COLOUR",
    "SAMPLE_COLOUR",
    "density_on_grid",
    "density_panel",
    "fan_panel",
    "forecast_picture",
    "image_grid",
    "new_figure",
    "pair_grid",
    "plane_limits",
    "point_panel",
    "run_picture",
    "samples_picture",
    "save",
    "training_curve",
]
