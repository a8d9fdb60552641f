"""A figure with its own canvas, the two colours of every picture, and writing to a file."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from maskedflow.files import atomic

__all__ = ["DATA_COLOUR", "SAMPLE_COLOUR", "new_figure", "save"]

# Blue and orange stay apart for every common form of colour blindness and in grey.
DATA_COLOUR = "#2b6ca3"
SAMPLE_COLOUR = "#e8862e"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` x ``height`` inches that needs no display and no ``pyplot``.

    Example:
        >>> new_figure(4, 3).get_size_inches().tolist()
        [4.0, 3.0]
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path | str, dpi: int = 150) -> None:
    """Write ``figure`` as a PNG, beside ``path`` first and then moved over it.

    Args:
        figure: The picture.
        path: File to write; its folder is made when missing.
        dpi: Dots per inch.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as beside:
        figure.savefig(beside, format="png", dpi=dpi)
