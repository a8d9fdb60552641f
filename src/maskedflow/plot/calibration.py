"""Whether posteriors are calibrated: ranks, coverage, and what they predict."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from scipy.stats import binom

from maskedflow.inference import Coverage, PredictiveCheck, Ranks

from .figures import DATA_COLOUR, SAMPLE_COLOUR, bin_edges, limits_of, panels, shown_figure

MOST, BINS = 16, 40
"""The most statistics that have a panel, and the most bins of one."""

COLOURS = (SAMPLE_COLOUR, DATA_COLOUR, "#4a9b5d", "#8a5fa8", "0.3")


def ranks(found: Ranks, *, fig: Figure | SubFigure | None = None) -> NDArray[np.object_]:
    """Draws a histogram of the ranks of each parameter, flat if the posterior is right.

    A valley in the middle means that it is too narrow, a hill that it is too wide, a slope that it
    is too high or too low. Grey is where 99 bars of 100 of a right one end.

    Args:
        found: What :func:`maskedflow.inference.sbc` returned.
        fig: Where to draw: a figure or a part of one. If None, a new figure of `pyplot`.

    Returns:
        Axes of shape (D,).

    Example:
        >>> from maskedflow.plot.figures import new_figure
        >>> uniform = np.random.default_rng(0).random((200, 1))
        >>> found = Ranks(("a",), (100 * uniform).astype(int), 99, uniform)
        >>> ranks(found, fig=new_figure(4, 3))[0].get_title()
        'a: calibrated'
    """
    axes = panels(fig, len(found.names))
    counts = found.counts
    bars, pairs = counts.shape[1], len(found.ranks)
    low, high = binom.ppf([0.005, 0.995], pairs, 1 / bars)
    edges = np.linspace(0, found.number, bars + 1)
    for one, name, verdict, heights in zip(axes, found.names, found.verdicts, counts, strict=True):
        one.axhspan(low, high, color="0.5", alpha=0.3, lw=0)
        one.axhline(pairs / bars, color="0.5", lw=0.8)
        one.stairs(heights, edges, color=SAMPLE_COLOUR, fill=True, alpha=0.7)
        one.set_xlim(0, found.number)
        one.set_ylim(0, 1.1 * max(high, heights.max()))
        one.set_title(f"{name}: {verdict}", fontsize=9)
        one.set_xlabel("rank", fontsize=9)
    axes[0].set_ylabel("posteriors", fontsize=9)
    return axes


def coverage(found: Coverage | Mapping[str, Coverage], *, ax: Axes | None = None) -> Axes:
    """Draws how many regions of each credibility hold the true parameters.

    A curve on the diagonal is right, one below it means regions that are too small: a posterior
    that is too narrow, or biased. Bands hold 95% of what other pairs would give.

    Args:
        found: What :func:`maskedflow.inference.expected_coverage` or
            :func:`maskedflow.inference.tarp` returned, or a mapping from names to such.
        ax: Where to draw. If None, axes of a new figure of `pyplot`.

    Example:
        >>> from maskedflow.plot.figures import new_figure
        >>> found = Coverage("balls", np.random.default_rng(0).random(200))
        >>> axes = coverage({"flow": found}, ax=new_figure(4, 4).subplots())
        >>> axes.get_legend_handles_labels()[1]
        ['flow']
    """
    several = {found.regions: found} if isinstance(found, Coverage) else found
    axes = shown_figure(4, 4).subplots() if ax is None else ax
    axes.plot([0, 1], [0, 1], color="0.5", lw=0.8)
    for i, (name, one) in enumerate(several.items()):
        colour = COLOURS[i % len(COLOURS)]
        axes.fill_between(one.levels, *one.band, color=colour, alpha=0.25, lw=0)
        axes.plot(one.levels, one.coverage, color=colour, lw=1.5, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_box_aspect(1)
    axes.set_xlabel("credibility", fontsize=9)
    axes.set_ylabel("expected coverage", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    return axes


def predictive(
    found: PredictiveCheck, *, fig: Figure | SubFigure | None = None
) -> NDArray[np.object_]:
    """Draws the observation as a line in the histogram of what its posterior predicts.

    Args:
        found: What :func:`maskedflow.inference.predictive_check` returned.
        fig: Where to draw: a figure or a part of one. If None, a new figure of `pyplot`.

    Returns:
        Axes of shape (S,).

    Raises:
        ValueError: If there are too many statistics for panels.

    Example:
        >>> from maskedflow.plot.figures import new_figure
        >>> simulated = np.random.default_rng(0).normal(size=(200, 1))
        >>> found = PredictiveCheck(("mean",), np.array([5.0]), simulated)
        >>> predictive(found, fig=new_figure(4, 3))[0].get_title()
        'mean: p = 0.01'
    """
    if len(found.names) > MOST:
        raise ValueError(
            f"found: expected up to {MOST} statistics, got {len(found.names)}; give"
            " predictive_check some as its statistics"
        )
    axes = panels(fig, len(found.names))
    each = zip(axes, found.names, found.observed, found.simulated.T, found.p_values, strict=True)
    for one, name, observed, simulated, p in each:
        edges = bin_edges(simulated, limits_of([*simulated, observed], tail=0), BINS)
        counts, _ = np.histogram(simulated, edges, density=True)
        one.stairs(counts, edges, color=SAMPLE_COLOUR, fill=True, alpha=0.7)
        one.axvline(observed, color=DATA_COLOUR, lw=1.5)
        one.set_yticks([])
        one.set_title(f"{name}: p = {p:.2g}", fontsize=9)
    return axes
