"""Samples of whatever is drawn."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from maskedflow.columns import kind_of
from maskedflow.posteriors import NamedDensity
from maskedflow.posteriors.context import contexts_of, refuse
from maskedflow.posteriors.faces import fitted_of
from maskedflow.tables import FittedTable

from .rows import Table, numbers_of, table_of


def are_samples(thing: Any) -> bool:
    """Whether it is rows already: an array, a tensor, or a frame."""
    return (
        kind_of(thing) != "numpy" or isinstance(thing, list | tuple) or hasattr(thing, "__array__")
    )


def samples_of(
    thing: Any,
    n: int,
    seed: int,
    *,
    context: Any = None,
    x: Any = None,
    weights: ArrayLike | None = None,
) -> Table:
    """Draws n rows of a density, those columns that are numbers; samples stay what they are.

    Raises:
        TypeError: If it is nothing that can be drawn.
        ValueError: If a context, an observation or weights are missing, or needless.
    """
    if are_samples(thing):
        refuse(context=context, x=x)
        return table_of(thing, weights, "thing")
    if weights is not None:
        raise ValueError("weights: expected none here: only samples have weights")
    fitted = fitted_of(thing)
    if isinstance(fitted, FittedTable):  # which may have other columns, too
        refuse(x=x)
        rows = contexts_of(context, fitted.context_columns)(n)
        return numbers_of(fitted.sample(n, rows, seed=seed), "thing")
    return drawn_of(NamedDensity.of(thing, context=context, x=x), n, seed)


def drawn_of(density: NamedDensity, n: int, seed: int) -> Table:
    """Draws n rows of numbers."""
    return Table(density.columns, density.sample(n, seed).double().numpy(force=True))
