"""Are a model's own random numbers normal and independent?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import kstest, norm

from .embed import Picture, embed
from .figures import DATA_COLOUR, new_figure

__all__ = ["Latent", "latent_facts"]

BINS, LINES = 20, 100
WORST = 8
"""The numbers that the table names."""


@dataclass(frozen=True)
class Latent:
    """What the random numbers behind test rows look like.

    Args:
        rows: The number of test rows.
        numbers: The random numbers behind each.
        far: How many of them are further from normal than one in twenty would be by chance.
        critical: The KS distance that makes them so.
        correlation: The largest absolute correlation of two of them; nan of one.
        by_chance: About the largest of as many independent ones.
        worst: The number, mean, standard deviation and KS distance of those furthest from normal.
        pictures: PIT and quantiles; correlations.
    """

    rows: int
    numbers: int
    far: int
    critical: float
    correlation: float
    by_chance: float
    worst: list[tuple[int, float, float, float]]
    pictures: list[Picture]


def latent_facts(z: NDArray[np.float64]) -> Latent:
    r"""Looks at :math:`z = f(x)` of test rows, which the model takes for independent and N(0, 1).

    Args:
        z: The numbers, shape (n, numbers).

    References:
        | Masked Autoregressive Flow (Papamakarios et al., 2017), section 3.1 and figure 1
        | https://arxiv.org/abs/1705.07057
    """
    n, numbers = z.shape
    distance = np.array([kstest(column, "norm").statistic for column in z.T])
    order = np.argsort(-distance)
    critical = 1.358 / math.sqrt(n)
    pictures = [_pit(z), _quantiles(z[:, order[:LINES]])]
    correlation = by_chance = math.nan
    if numbers > 1:
        plain, absolute = _correlations(z), _correlations(np.abs(z))
        correlation = float(np.abs(plain).max())
        pairs = numbers * (numbers - 1) / 2
        by_chance = math.sqrt(2 * math.log(max(pairs, 3)) / n)
    if numbers > 2:
        pictures += [
            _heat(plain, "correlations of z", correlation),
            _heat(absolute, "correlations of |z|", float(np.abs(absolute).max())),
        ]
    worst = [
        (int(i) + 1, float(z[:, i].mean()), float(z[:, i].std()), float(distance[i]))
        for i in order[:WORST]
    ]
    far = int((distance > critical).sum())
    return Latent(n, numbers, far, critical, correlation, by_chance, worst, pictures)


def _correlations(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations off the diagonal, zero on it; of a constant, none."""
    centred = z - z.mean(0)
    scale = np.sqrt((centred**2).sum(0))
    centred /= np.where(scale > 0, scale, 1)
    found: NDArray[np.float64] = centred.T @ centred
    np.fill_diagonal(found, 0)
    return found


def _pit(z: NDArray[np.float64]) -> Picture:
    """The histogram of the probability integral transform, flat if all is well."""
    figure = new_figure(4.2, 3.2)
    axes = figure.subplots()
    counts, edges = np.histogram(norm.cdf(z), BINS, (0, 1))
    share = counts * BINS / z.size
    # The counts of one number are independent of those of another if the model is right.
    band = 2 * math.sqrt((BINS - 1) / z.size)
    axes.axhspan(1 - band, 1 + band, color="0.5", alpha=0.3, lw=0)
    axes.stairs(share, edges, color=DATA_COLOUR, fill=True, alpha=0.6)
    axes.set_ylim(0, max(1.3, 1.1 * share.max()))
    _label(axes, "Φ(z)", "density")
    return embed(
        figure,
        f"Histogram of the probability integral transforms, between {share.min():.2f} and"
        f" {share.max():.2f} where a perfect model has 1",
        "PIT, Φ(z), of all numbers. It should be flat: high ends mean that the density is too"
        " narrow, a hill that it is too wide. Grey: where 19 bins of 20 should end.",
    )


def _quantiles(z: NDArray[np.float64]) -> Picture:
    """Quantiles of each number beside normal ones."""
    figure = new_figure(4.2, 3.2)
    axes = figure.subplots()
    n = len(z)
    shares = (np.arange(min(n, 200)) + 0.5) / min(n, 200)
    normal = norm.ppf(shares)
    lines = np.quantile(z, shares, axis=0)
    axes.plot(normal, normal, color="0.2", lw=0.8)
    alpha = max(0.15, 1 / math.sqrt(z.shape[1]))
    axes.plot(normal, lines, color=DATA_COLOUR, lw=1, alpha=alpha)
    _label(axes, "normal quantile", "quantile of z")
    furthest = float(np.abs(lines - normal[:, None])[np.abs(normal) < 2].max())
    return embed(
        figure,
        f"Quantiles of z against normal ones; within two standard deviations the furthest line is"
        f" {furthest:.2f} off the diagonal",
        "Quantiles, a line for each number. They should lie on the diagonal.",
    )


def _heat(values: NDArray[np.float64], what: str, largest: float) -> Picture:
    figure = new_figure(4.2, 3.2)
    axes = figure.subplots()
    bound = max(0.1, largest)
    image = axes.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
    figure.colorbar(image, ax=axes).ax.tick_params(labelsize=8)
    axes.set_xticks([])
    axes.set_yticks([])
    return embed(
        figure,
        f"Matrix of the {what}, of which the largest is {largest:.3f}",
        f"The {what}, which should vanish.",
    )


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
