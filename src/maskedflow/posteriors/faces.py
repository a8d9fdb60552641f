"""How each kind of density draws rows of numbers, and scores them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from maskedflow.distributions.base import log_density, unvalidated
from maskedflow.tables import FittedTable
from maskedflow.training import randomness
from maskedflow.training.batches import input_like
from maskedflow.training.evaluation import frozen
from maskedflow.training.randomness import noise_of, seed_noise

BATCH_SIZE = 10_000
"""Rows computed at once: enough to share among threads, few enough for little memory."""

Context = Tensor | Sequence[float] | Mapping[str, Any]
"""What a density is conditional on: numbers in their order, or by the names of their columns."""

Draw = Callable[[int, int], Tensor]
Score = Callable[[Tensor], Tensor]
Origin = tuple[nn.Module | Distribution, Tensor | None]


class Face(NamedTuple):
    """What :class:`NamedDensity` is made of."""

    columns: tuple[str, ...]
    draw: Draw
    score: Score
    origin: Origin | None = None


def face_of(thing: Any, columns: Sequence[str] | None, context: Context | None) -> Face:
    """The face of a density, see :meth:`NamedDensity.of`.

    What has names keeps them, and their order.

    Raises:
        TypeError: If it is no density.
        ValueError: If columns or context do not fit, or a column is not one of numbers.
    """
    if isinstance(thing, nn.Module):
        return _of_module(thing, columns, context)
    if isinstance(thing, Distribution):
        return _of_distribution(thing, columns)
    inner = getattr(thing, "fitted_", thing)  # of an estimator
    if not isinstance(inner, FittedTable):
        inner = getattr(thing, "density", thing)  # of a run
    if isinstance(inner, FittedTable):
        return _of_table(inner, context)
    if isinstance(getattr(inner, "flow", None), nn.Module) and hasattr(inner, "columns"):
        given = _by_name(context, inner.context_columns)
        return _of_module(inner.flow, inner.columns, given)
    if hasattr(thing, "sample") and hasattr(thing, "log_prob"):
        return _of_pair(thing, getattr(thing, "columns", columns))
    raise TypeError(
        "density: expected a flow, a distribution, a run, a fitted estimator, or anything with "
        f"sample and log_prob, got a {type(thing).__name__}"
    )


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


def seeded(sample: Callable[[torch.Size], Tensor]) -> Draw:
    """Draws by a seed from what draws from torch's own generator, which is left as it was."""

    def draw(n: int, seed: int) -> Tensor:
        sizes = [min(BATCH_SIZE, n - start) for start in range(0, n, BATCH_SIZE)]
        with randomness.seeded(seed), torch.no_grad():
            return torch.cat([sample(torch.Size((rows,))) for rows in sizes])

    return draw


def _of_module(module: nn.Module, columns: Sequence[str] | None, context: Context | None) -> Face:
    like, noise = input_like(module), noise_of(module)
    c = None if context is None else torch.as_tensor(_by_name(context)).to(like)
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
            made = module(c)
            parts = x.to(like).split(BATCH_SIZE)
            return torch.cat([made.log_prob(part).double() for part in parts])

    with frozen(module):
        names = _names_of_vectors(columns, module(c).event_shape)
    return Face(names, seeded(sample), score, (module, c))


def _of_distribution(thing: Distribution, columns: Sequence[str] | None) -> Face:
    if thing.batch_shape:
        raise ValueError(
            f"density: expected one distribution of vectors, got a batch of shape "
            f"{tuple(thing.batch_shape)}; torch.distributions.Independent makes it one"
        )
    names = _names_of_vectors(columns, thing.event_shape)
    draw, free = seeded(thing.sample), unvalidated(thing)
    like = draw(1, 0)

    def score(x: Tensor) -> Tensor:
        parts = x.to(like).split(BATCH_SIZE)
        return torch.cat([log_density(free, part).double() for part in parts])

    return Face(names, draw, score, (thing, None))


def _of_pair(thing: Any, columns: Sequence[str] | None) -> Face:
    """The face of anything with `sample((n,))` and `log_prob(x)`."""
    draw = seeded(thing.sample)
    like = draw(1, 0)

    def score(x: Tensor) -> Tensor:
        parts = x.to(like).split(BATCH_SIZE)
        return torch.cat([thing.log_prob(part).double() for part in parts])

    return Face(_names_of_vectors(columns, like.shape[1:]), draw, score)


def _of_table(fitted: FittedTable, context: Context | None) -> Face:
    columns = fitted.columns
    for name in columns:
        kind = fitted.types[name]
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise ValueError(f"density: expected columns of numbers, got {name!r} of type {kind}")
    names, given = fitted.context_columns, _by_name(context, fitted.context_columns)
    if given is not None:
        cells = given.flatten().tolist() if isinstance(given, Tensor) else list(given)
        if len(cells) != len(names):
            raise ValueError(f"context: expected {len(names)} values, got {len(cells)}")
        row = pa.table({name: [cell] for name, cell in zip(names, cells, strict=True)})

    def contexts(n: int) -> pa.Table | None:
        return None if given is None else row.take(np.zeros(n, np.int64))

    def draw(n: int, seed: int) -> Tensor:
        table = fitted.sample(n, contexts(n), seed=seed)
        cells = [table[name].cast(pa.float64()).to_numpy() for name in columns]
        return torch.from_numpy(np.stack(cells, axis=1))

    def score(x: Tensor) -> Tensor:
        found = []
        for part in x.detach().double().split(BATCH_SIZE):
            table = pa.table(dict(zip(columns, part.numpy().T, strict=True)))
            found.append(fitted.log_prob(table, contexts(len(part))))
        return torch.cat(found)

    return Face(columns, draw, score)


def _by_name(context: Context | None, names: Sequence[str] = ()) -> Tensor | Sequence[Any] | None:
    """The values of a context in the order of its columns."""
    if not isinstance(context, Mapping):
        return context
    if not names or any(name not in context for name in names):
        wanted = ", ".join(names) or "numbers in their order"
        raise ValueError(f"context: expected {wanted}, got {', '.join(context) or 'none'}")
    return [context[name] for name in names]


def _names_of_vectors(columns: Sequence[str] | None, shape: Sequence[int]) -> tuple[str, ...]:
    if len(shape) != 1:
        raise ValueError(f"density: expected one of vectors, got events of shape {tuple(shape)}")
    return names_of(columns, shape[0])
