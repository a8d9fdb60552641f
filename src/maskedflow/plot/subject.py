"""What is drawn: samples and a density, of a flow, a posterior, an estimator, a run, a frame."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.distributions import Distribution

from maskedflow.columns import to_arrow
from maskedflow.distributions.base import Base, log_density
from maskedflow.inference.draws import quietly, seeded
from maskedflow.tables import FittedTable
from maskedflow.training.batches import input_like
from maskedflow.training.evaluation import frozen

from .rows import Table, numbers_of, table_of

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Subject:
    """What can be sampled, and may have a density.

    Args:
        sample: Draws n rows by a seed.
        log_prob: Log-densities in nats of rows, shape (n, D) -> (n,); None of samples alone.
    """

    sample: Callable[[int, int], Table]
    log_prob: Callable[[Numbers], Numbers] | None = None


def subject_of(
    thing: Any, *, context: Any = None, x: Any = None, weights: ArrayLike | None = None
) -> Subject:
    """Finds out what a thing is.

    Raises:
        TypeError: If it is nothing that can be drawn.
        ValueError: If a context, an observation or weights are missing, or needless.
    """
    density = getattr(thing, "fitted_", None) or getattr(thing, "density", None)
    density = density if hasattr(density, "arrow") else thing
    if hasattr(density, "arrow") and hasattr(density, "sample"):
        _refuse(x=x, weights=weights)
        return _of_density(density, context)
    if hasattr(thing, "log_prob") and hasattr(thing, "sample"):
        _refuse(context=context, weights=weights)
        if hasattr(thing, "columns"):
            _refuse(x=x)
            return _of_named(thing)
        return _of_distribution(lambda: thing, {} if x is None else {"x": torch.as_tensor(x)})
    if isinstance(thing, nn.Module):
        _refuse(x=x, weights=weights)
        given = [] if context is None else [torch.as_tensor(context).to(input_like(thing))]
        return _of_distribution(lambda: thing(*given), {}, thing)
    _refuse(context=context, x=x)
    if hasattr(thing, "fit"):
        raise ValueError(f"thing: expected a fitted {type(thing).__name__}; call its fit first")
    if isinstance(thing, str | bytes) or callable(thing):
        raise TypeError(
            "thing: expected a flow, a distribution, a posterior, an estimator, a run or samples,"
            f" got {type(thing).__name__}"
        )
    table = table_of(thing, weights, "thing")
    return Subject(lambda n, seed: table)


def _refuse(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            what = {
                "context": "flows, estimators and runs have a context",
                "x": "posteriors have an observation",
                "weights": "samples have weights",
            }[name]
            raise ValueError(f"{name}: expected none here: only {what}")


def _of_named(thing: Any) -> Subject:
    """That of a density of named columns, with `sample(n, seed=)`."""

    def sample(n: int, seed: int) -> Table:
        drawn = thing.sample(n, seed=seed)
        return Table(tuple(thing.columns), drawn.double().numpy(force=True))

    def log_prob(rows: Numbers) -> Numbers:
        found: Numbers = thing.log_prob(torch.as_tensor(rows)).double().numpy(force=True)
        return found

    return Subject(sample, log_prob)


def _of_distribution(
    make: Callable[[], Any], given: dict[str, Any], module: nn.Module | None = None
) -> Subject:
    """That of a distribution or a posterior, made anew by its module each time if it has one."""

    def at_rest() -> AbstractContextManager[None]:
        return nullcontext() if module is None else frozen(module)

    def draw(n: int, seed: int) -> Tensor:
        with at_rest(), seeded(seed):
            drawn = quietly(make().sample, (n,), **given)
        if drawn.ndim > 2 and drawn.shape[1] == 1:  # of one context, or one observation
            drawn = drawn[:, 0]
        if not 1 <= drawn.ndim <= 2:
            raise ValueError(
                f"thing: expected samples of shape (n,) or (n, D), got {tuple(drawn.shape)}; draw"
                " one context at a time"
            )
        return drawn

    def sample(n: int, seed: int) -> Table:
        return table_of(draw(n, seed), None, "thing")

    @cache
    def one() -> Tensor:
        return draw(1, 0)

    def log_prob(rows: Numbers) -> Numbers:
        points = torch.as_tensor(rows).to(one())
        points = points[:, 0] if one().ndim == 1 else points
        with at_rest(), torch.no_grad():
            made = make()
            # Torch's own distributions raise an error outside of their support.
            plain = isinstance(made, Distribution) and not isinstance(made, Base)
            found = log_density(made, points) if plain else made.log_prob(points, **given)
        if found.shape != points.shape[:1]:
            raise ValueError(
                f"thing: expected a log-density a row, shape {tuple(points.shape[:1])}, got"
                f" {tuple(found.shape)}"
            )
        scores: Numbers = found.double().numpy(force=True)
        return scores

    return Subject(sample, log_prob)


def _of_density(density: Any, context: Any) -> Subject:
    """That of a run, an estimator, or what was fitted."""
    table = isinstance(density, FittedTable)
    if context is None:
        given, size = None, 0
    elif table:
        given = to_arrow(context, "context")
        size = given.num_rows * len(density.context_columns)
    else:
        given = torch.as_tensor(context).to(density.dtype).reshape(1, -1)
        size = given.shape[1]
    if size != len(density.context_columns):
        wanted = ", ".join(density.context_columns)
        raise ValueError(f"context: expected {f'one row of {wanted}' if wanted else 'none'}")

    def contexts(n: int) -> Any:
        return None if given is None else given.take([0] * n) if table else given.expand(n, -1)

    def sample(n: int, seed: int) -> Table:
        drawn = density.sample(n, contexts(n), seed=seed)
        return numbers_of(density.arrow(drawn), "thing")

    def log_prob(rows: Numbers) -> Numbers:
        if table:
            points: Any = pa.table(dict(zip(density.columns, rows.T.copy(), strict=True)))
        else:
            points = torch.as_tensor(rows).to(density.dtype)
        found: Numbers = density.log_prob(points, contexts(len(rows))).numpy()
        return found

    return Subject(sample, log_prob)
