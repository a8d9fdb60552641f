"""How each kind of density draws rows of numbers, and scores them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from maskedflow.distributions.base import log_density, unvalidated
from maskedflow.tables import FittedTable
from maskedflow.training import randomness
from maskedflow.training.batches import input_like
from maskedflow.training.evaluation import frozen
from maskedflow.training.randomness import noise_of, seed_noise

from .context import Context, contexts_of, refuse, row_of

BATCH_SIZE = 10_000
"""Rows computed at once: enough to share among threads, few enough for little memory."""

QUIET: dict[str, Any] = {"show_progress_bars": False, "norm_posterior": False}
"""Keywords of sbi: no bars, and no constant of each observation."""

Draw = Callable[[int, int], Tensor]
Score = Callable[[Tensor], Tensor]
Origin = tuple[nn.Module | Distribution, Tensor | None]


class Face(NamedTuple):
    """What :class:`NamedDensity` is made of."""

    columns: tuple[str, ...]
    draw: Draw
    score: Score
    origin: Origin | None = None


def face_of(
    thing: Any, columns: Sequence[str] | None, context: Context | None, x: Any = None
) -> Face:
    """The face of a density, see :meth:`NamedDensity.of`.

    What has names keeps them, and their order.

    Raises:
        TypeError: If it is no density.
        ValueError: If columns, context or observation do not fit, or a column is not one of
            numbers.
    """
    inner = fitted_of(thing)
    if isinstance(inner, FittedTable):
        refuse(x=x)
        return _of_table(inner, context)
    if isinstance(thing, nn.Module):
        refuse(x=x)
        return _of_module(thing, columns, context)
    if isinstance(getattr(inner, "flow", None), nn.Module) and hasattr(inner, "columns"):
        refuse(x=x)
        row = row_of(context, inner.context_columns)
        given = None if row is None else [column[0].as_py() for column in row.columns]
        return _of_module(inner.flow, inner.columns, given)
    if isinstance(thing, Distribution):
        refuse(context=context, x=x)
        return _of_distribution(thing, columns)
    if hasattr(thing, "sample") and hasattr(thing, "log_prob"):
        refuse(context=context)
        return _of_posterior(thing, getattr(thing, "columns", columns), x)
    if hasattr(thing, "fit"):
        raise ValueError(f"thing: expected a fitted {type(thing).__name__}; call its fit first")
    raise TypeError(
        "thing: expected a flow, a distribution, a posterior, a run, a fitted estimator, or "
        f"anything with sample and log_prob, got a {type(thing).__name__}"
    )


def fitted_of(thing: Any) -> Any:
    """The density that an estimator or a run is about; anything else as it is."""
    found = getattr(thing, "fitted_", None) or getattr(thing, "density", None)
    return found if hasattr(found, "context_columns") else thing


def quietly(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
    """Calls a method of a posterior, with those of the quiet keywords that it knows."""
    known = inspect.signature(method).parameters
    return cast(Tensor, method(*args, **kwargs, **{k: v for k, v in QUIET.items() if k in known}))


def names_of(columns: Sequence[str] | None, features: int) -> tuple[str, ...]:
    """The names that are given, or else x0, x1 and so on."""
    if columns is None:
        return tuple(f"x{i}" for i in range(features))
    columns = (columns,) if isinstance(columns, str) else tuple(columns)
    if len(columns) != features:
        raise ValueError(f"columns: expected {features} names, got {len(columns)}")
    if len(set(columns)) < len(columns):
        raise ValueError(f"columns: expected different names, got {', '.join(columns)}")
    return columns


def by_seed(sample: Callable[[torch.Size], Tensor]) -> Draw:
    """Draws by a seed from what draws from torch's own generator, which is left as it was."""

    def draw(n: int, seed: int) -> Tensor:
        sizes = [min(BATCH_SIZE, n - start) for start in range(0, n, BATCH_SIZE)]
        with randomness.seeded(seed), torch.no_grad():
            return torch.cat([sample(torch.Size((rows,))) for rows in sizes])

    return draw


def _in_batches(log_prob: Score, x: Tensor, like: Tensor) -> Tensor:
    return torch.cat([log_prob(part).double() for part in x.to(like).split(BATCH_SIZE)])


def _of_module(module: nn.Module, columns: Sequence[str] | None, context: Any) -> Face:
    if isinstance(context, Mapping):
        raise ValueError(f"context: expected numbers in their order, got {', '.join(context)}")
    like, noise = input_like(module), noise_of(module)
    c = None if context is None else torch.as_tensor(context).to(like)
    if c is not None and c.ndim == 2 and len(c) == 1:
        c = c[0]

    def sample(shape: torch.Size) -> Tensor:
        with frozen(module):
            drawn: Tensor = module(c).sample(shape)
            return drawn

    def score(x: Tensor) -> Tensor:
        seed_noise(noise, 0)
        learns = torch.is_grad_enabled()
        with frozen(module), torch.set_grad_enabled(learns):
            return _in_batches(module(c).log_prob, x, like)

    with frozen(module):
        made = module(c)
    if made.batch_shape:
        raise ValueError(
            f"context: expected one, got a batch of shape {tuple(made.batch_shape)}; ask about one"
            " context at a time"
        )
    return Face(_names_of_vectors(columns, made.event_shape), by_seed(sample), score, (module, c))


def _of_distribution(thing: Distribution, columns: Sequence[str] | None) -> Face:
    if thing.batch_shape:
        raise ValueError(
            f"thing: expected one distribution of vectors, got a batch of shape "
            f"{tuple(thing.batch_shape)}; torch.distributions.Independent makes it one"
        )
    if not thing.event_shape:
        thing = Independent(thing.expand(torch.Size((1,))), 1, validate_args=False)
    names = _names_of_vectors(columns, thing.event_shape)
    draw, free = by_seed(thing.sample), unvalidated(thing)
    like = draw(1, 0)
    score = partial(_in_batches, partial(log_density, free), like=like)
    return Face(names, draw, score, (thing, None))


def _of_posterior(thing: Any, columns: Sequence[str] | None, x: Any) -> Face:
    """The face of anything with `sample((n,))` and `log_prob(x)`, given an observation or none."""
    if hasattr(thing, "at"):  # then it is a distribution, of which more may be known
        return _of_distribution(thing.at(x), columns)
    given = {} if x is None else {"x": torch.as_tensor(x)}
    draw = by_seed(partial(quietly, thing.sample, **given))
    like = draw(1, 0)

    def log_prob(part: Tensor) -> Tensor:
        found: Tensor = thing.log_prob(part, **given)
        if found.shape != part.shape[:1]:
            raise ValueError(
                f"thing: expected a log-density a row, shape {tuple(part.shape[:1])}, got"
                f" {tuple(found.shape)}"
            )
        return found

    def score(rows: Tensor) -> Tensor:
        with randomness.seeded(0):  # sbi's normalises by draws
            return _in_batches(log_prob, rows, like)

    return Face(_names_of_vectors(columns, like.shape[1:]), draw, score)


def _of_table(fitted: FittedTable, context: Any) -> Face:
    columns, contexts = fitted.columns, contexts_of(context, fitted.context_columns)
    for name in columns:
        kind = fitted.types[name]
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise ValueError(f"thing: expected columns of numbers, got {name!r} of type {kind}")
    needed = [column for column in fitted.schema.columns if column.name in columns]
    for column in needed:
        if column.missing:
            raise ValueError(f"thing: expected columns of numbers, got {column.name!r} with gaps")
    whole = [column.name for column in needed if pa.types.is_integer(column.type)]

    def draw(n: int, seed: int) -> Tensor:
        table = fitted.sample(n, contexts(n), seed=seed)
        cells = [table[name].cast(pa.float64()).to_numpy() for name in columns]
        return torch.from_numpy(np.stack(cells, axis=1))

    def score(x: Tensor) -> Tensor:
        found = []
        for part in x.detach().double().split(BATCH_SIZE):
            cells = dict(zip(columns, part.numpy().T, strict=True))
            # As in a column of floats on a grid, what lies between integers counts as the nearest.
            cells |= {name: np.rint(cells[name]) for name in whole}
            table = pa.table(cells)
            found.append(fitted.log_prob(table, contexts(len(part))))
        return torch.cat(found)

    return Face(columns, draw, score)


def _names_of_vectors(columns: Sequence[str] | None, shape: Sequence[int]) -> tuple[str, ...]:
    if len(shape) != 1:
        raise ValueError(f"thing: expected one of vectors, got events of shape {tuple(shape)}")
    return names_of(columns, shape[0])
