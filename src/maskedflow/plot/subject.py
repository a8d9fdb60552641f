"""What is drawn: rows of numbers, and a density, of a flow, a posterior, an estimator, a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

from maskedflow.columns import kind_of, to_arrow, weights_of
from maskedflow.distributions.base import Base, log_density
from maskedflow.inference.draws import quietly, seeded
from maskedflow.tables import FittedTable
from maskedflow.training.batches import input_like
from maskedflow.training.evaluation import frozen

from .figures import Limits, limits_of

TAIL, EDGE = 0.003, 0.08
"""What of the rows is outside of a panel at either end, and the margin around the rest."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers that have names.

    Args:
        names: The columns, which are numbers.
        rows: Shape (n, D), NaN where a cell is missing.
        weights: How much each row counts, shape (n,); all the same if None.
    """

    names: tuple[str, ...]
    rows: Numbers
    weights: Numbers | None = None

    def chosen(self, columns: Sequence[str | int] | None) -> Table:
        """Some of the columns, by name or place; all if None."""
        if columns is None:
            return self
        places = [self._place(column) for column in columns]
        return Table(tuple(self.names[i] for i in places), self.rows[:, places], self.weights)

    def complete(self, name: str) -> Table:
        """The rows that have all numbers, and a weight.

        Raises:
            ValueError: If there is none; `name` is what the message calls them.
        """
        kept = np.isfinite(self.rows).all(1)
        if self.weights is not None:
            kept &= self.weights > 0
        if not kept.any():
            raise ValueError(f"{name}: expected rows of finite numbers, got none")
        weights = None if self.weights is None else self.weights[kept]
        return Table(self.names, self.rows[kept], weights)

    def _place(self, column: str | int) -> int:
        if isinstance(column, str) and column in self.names:
            return self.names.index(column)
        if isinstance(column, int | np.integer) and 0 <= column < len(self.names):
            return int(column)
        raise ValueError(f"columns: expected some of {', '.join(self.names)}, got {column!r}")


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


def table_of(frame: Any, weights: ArrayLike | None, name: str) -> Table:
    """The columns of numbers of an array, a tensor or a frame, and the weights of its rows.

    Raises:
        ValueError: If it has none, or weights do not fit.
    """
    if kind_of(frame) == "numpy":
        frame = frame if hasattr(frame, "ndim") else np.asarray(frame)
        frame = frame[:, None] if frame.ndim == 1 else frame
    found = _numbers(to_arrow(frame, name), name)
    known = weights_of(frame) if weights is None else np.asarray(weights, np.float64)
    if known is None:
        return found
    if known.shape != found.rows.shape[:1]:
        raise ValueError(
            f"weights: expected one for each of the {len(found.rows)} rows of {name}, got shape"
            f" {known.shape}"
        )
    if not (known >= 0).all() or not 0 < known.sum() < np.inf:
        raise ValueError("weights: expected finite numbers of 0 or more, not all 0")
    return Table(found.names, found.rows, known)


def beside(table: Table, data: Any, weights: ArrayLike | None) -> Table:
    """Data in the columns of a table: by name where they have names, else in the same places.

    Raises:
        ValueError: If there are others.
    """
    found = table_of(data, weights, "data")
    if kind_of(data) != "numpy" and set(table.names) <= set(found.names):
        return found.chosen(table.names)
    if len(found.names) != len(table.names):
        raise ValueError(
            f"data: expected {len(table.names)} columns of numbers, {', '.join(table.names)}, got"
            f" {len(found.names)}"
        )
    return Table(table.names, found.rows, found.weights)


def truth_of(
    truth: ArrayLike | Mapping[str, float], names: Sequence[str], whole: Sequence[str]
) -> Numbers:
    """One number for each of the names, NaN where none is known.

    Raises:
        ValueError: If there are more or fewer than names or than all names there are.
    """
    if isinstance(truth, Mapping):
        if unknown := [name for name in truth if name not in whole]:
            raise ValueError(f"truth: expected some of {', '.join(whole)}, got {unknown[0]!r}")
        return np.array([truth.get(name, np.nan) for name in names], np.float64)
    cells = truth.numpy(force=True) if isinstance(truth, Tensor) else truth
    found = np.array(cells, np.float64).reshape(-1)
    if len(found) == len(whole):
        return found[[whole.index(name) for name in names]]
    if len(found) != len(names):
        raise ValueError(
            f"truth: expected {len(names)} numbers, for {', '.join(names)}, got {len(found)}"
        )
    return found


def limits_around(tables: Sequence[Table], truth: Numbers | None) -> list[Limits]:
    """For each column what holds nearly all complete rows of each table, and the truth."""
    found = []
    for i in range(tables[0].rows.shape[1]):
        ends = [limits_of(one.rows[:, i], TAIL, EDGE, one.weights) for one in tables]
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        if truth is not None and np.isfinite(truth[i]):
            margin = EDGE * (high - low)
            low, high = min(low, truth[i] - margin), max(high, truth[i] + margin)
        found.append((low, high))
    return found


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
        return _numbers(density.arrow(drawn), "thing")

    def log_prob(rows: Numbers) -> Numbers:
        if table:
            points: Any = pa.table(dict(zip(density.columns, rows.T.copy(), strict=True)))
        else:
            points = torch.as_tensor(rows).to(density.dtype)
        found: Numbers = density.log_prob(points, contexts(len(rows))).numpy()
        return found

    return Subject(sample, log_prob)


def _numbers(table: pa.Table, name: str) -> Table:
    kinds = pa.types
    kept = [
        field.name
        for field in table.schema
        if kinds.is_floating(field.type) or kinds.is_integer(field.type)
    ]
    if not kept:
        raise ValueError(
            f"{name}: expected a column of numbers, got {', '.join(table.column_names)}"
        )
    columns = [table[one].cast(pa.float64()).to_numpy() for one in kept]
    return Table(tuple(kept), np.stack(columns, axis=1))
