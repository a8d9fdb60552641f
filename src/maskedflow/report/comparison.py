"""The picture of several runs on the same test rows."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from maskedflow.runs import Compared

from .figures import DATA_COLOUR, SAMPLE_COLOUR, new_figure

__all__ = ["comparison_picture"]


def comparison_picture(found: Sequence[Compared]) -> Figure:
    """The NLL of each run, and how far it is behind the best, with two standard errors.

    Args:
        found: The runs, the best first.
    """
    figure = new_figure(9, 1.3 + 0.35 * len(found))
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(found))
    nll = [one.nll for one in found]
    left.errorbar(
        [mean.value for mean in nll],
        places,
        xerr=[mean.error for mean in nll],
        fmt="o",
        color=DATA_COLOUR,
        capsize=3,
    )
    behind = [(i, one.behind) for i, one in enumerate(found) if one.behind is not None]
    right.axvline(0, color="0.5", lw=1)
    right.errorbar(
        [mean.value for _, mean in behind],
        [i for i, _ in behind],
        xerr=[mean.error for _, mean in behind],
        fmt="o",
        color=SAMPLE_COLOUR,
        capsize=3,
    )
    left.set_yticks(places, [one.name for one in found])
    left.set_ylim(len(found) - 0.5, -0.5)
    for axes, title in ((left, "NLL (nats)"), (right, f"behind {found[0].name} (nats)")):
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    return figure
