"""A density of named columns, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from maskedflow.distributions.base import log_density, unvalidated
from maskedflow.tables import FittedTable
from maskedflow.training.batches import input_like
from maskedflow.training.evaluation import frozen
from maskedflow.training.randomness import noise_of, seed_noise

BATCH_SIZE = 10_000
"""Rows computed at once: enough to share among threads, few enough for little memory."""

Context = Tensor | Sequence[float] | Mapping[str, Any]
"""What a density is conditional on: numbers in their order, or by the names of their columns."""


@dataclass(frozen=True)
class HeldOut:
    r"""How a density q that was fitted to draws of p does on n further draws.

    If q is p, the share of q with a lower density than a draw's is uniform on [0, 1]: q's regions
    of highest density hold of p what they hold of q.

    Attributes:
        log_prob: The mean log-density of the draws, in nats.
        standard_error: Its standard error.
        ks: The Kolmogorov-Smirnov distance of these shares from the uniform distribution.
        p_value: How likely one so large is if q is p.
        n: The number of draws.
    """

    log_prob: float
    standard_error: float
    ks: float
    p_value: float
    n: int


@dataclass(frozen=True, eq=False)
class NamedDensity:
    r"""A density p(x) of columns that have names: one face for all that can be asked.

    `NamedDensity.of(thing, columns=None, context=None)` makes one; `columns`, `features`,
    `sample(n, seed=0)` and `log_prob(x)` are what it has. All functions of this room take what
    `of` takes.

    Args:
        columns: The names of the columns.
        draw: Draws so many rows by a seed, shape (n, D).
        score: The log-density of rows (n, D), shape (n,), in nats.
        origin: What it is made of, if that is a flow or a distribution, and its context.
        held_out: If it is a flow fitted to draws of what was asked for, how it does on others;
            None of what is exact.

    Example:
        >>> from maskedflow.flows import MAF
        >>> density = NamedDensity.of(MAF(2), ["mass", "radius"])
        >>> density.log_prob(density.sample(5, seed=1)).shape
        torch.Size([5])
    """

    columns: tuple[str, ...]
    draw: Callable[[int, int], Tensor] = field(repr=False)
    score: Callable[[Tensor], Tensor] = field(repr=False)
    origin: tuple[nn.Module | Distribution, Tensor | None] | None = field(default=None, repr=False)
    held_out: HeldOut | None = None

    @classmethod
    def of(
        cls, thing: Any, columns: Sequence[str] | None = None, context: Context | None = None
    ) -> NamedDensity:
        """Gives a density the face of named columns.

        Args:
            thing: A flow or another lazy distribution; a `torch.distributions.Distribution` of
                vectors; a run (:func:`maskedflow.load_run`); a fitted
                :class:`~maskedflow.DensityEstimator` whose columns are numbers; a posterior, or
                anything else with `sample((n,))` and `log_prob(x)`; or one of these already.
            columns: Names for what has none, `x0`, `x1`, ... if None. Of what has names, the order
                in which they are wanted.
            context: What a conditional density is conditional on: a vector, or a mapping from
                names.

        Raises:
            TypeError: If it is no density.
            ValueError: If columns do not fit, a context is missing or needless, or a column is not
                one of numbers.
        """
        if isinstance(thing, NamedDensity):
            return thing if columns is None else thing.ordered(columns)
        if isinstance(thing, nn.Module):
            return _of_module(thing, _names(columns, None), context)
        if isinstance(thing, Distribution):
            return _of_distribution(thing, columns)
        inner = getattr(thing, "fitted_", thing)
        if not isinstance(inner, FittedTable):
            inner = getattr(thing, "density", thing)
        if isinstance(inner, FittedTable):
            found = _of_table(inner, context)
        elif isinstance(getattr(inner, "flow", None), nn.Module) and hasattr(inner, "columns"):
            given = _vector(context, inner.context_columns)
            found = _of_module(inner.flow, tuple(inner.columns), given)
        elif hasattr(thing, "sample") and hasattr(thing, "log_prob"):
            names = getattr(thing, "columns", None)
            found = _of_pair(thing, _names(columns if names is None else names, None))
            columns = None if names is None else columns
        else:
            raise TypeError(
                "density: expected a flow, a distribution, a run, an estimator, or anything with "
                f"sample and log_prob, got a {type(thing).__name__}"
            )
        return found if columns is None else found.ordered(columns)

    @property
    def features(self) -> int:
        """The number of columns."""
        return len(self.columns)

    @property
    def exact(self) -> bool:
        """Whether it is the density that was asked for, and not one fitted to draws of that."""
        return self.held_out is None

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draws n rows, shape (n, D), without gradients."""
        if n < 1:
            raise ValueError(f"n: expected at least 1 draw, got {n}")
        with torch.no_grad():
            return self.draw(n, seed)

    def log_prob(self, x: Tensor) -> Tensor:
        """Computes the log-density of each row, float64, shape (n,), in nats.

        It has gradients where x has, and costs the memory of a few thousand rows otherwise.

        Raises:
            ValueError: If x has not shape (n, D).
        """
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"x: expected shape (n, {self.features}), got {tuple(x.shape)}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            return self.score(x)

    def index(self, columns: Sequence[str], argument: str = "columns") -> Tensor:
        """The places of some columns.

        Raises:
            ValueError: If there is no such column, or one is named twice.
        """
        if isinstance(columns, str):
            columns = [columns]
        for name in columns:
            if name not in self.columns:
                known = ", ".join(self.columns)
                raise ValueError(f"{argument}: expected some of {known}, got {name!r}")
        if len(set(columns)) < len(columns):
            raise ValueError(f"{argument}: expected each column once, got {', '.join(columns)}")
        return torch.tensor([self.columns.index(name) for name in columns])

    def ordered(self, columns: Sequence[str]) -> NamedDensity:
        """The same density, its columns in another order."""
        if tuple(columns) == self.columns:
            return self
        index = self.index(columns)
        if len(index) < self.features:
            raise ValueError(
                f"columns: expected all of {', '.join(self.columns)}, got {', '.join(columns)}"
            )
        back = index.argsort()
        return NamedDensity(
            tuple(columns),
            lambda n, seed: self.draw(n, seed)[:, index],
            lambda x: self.score(x[:, back]),
            held_out=self.held_out,
        )


def _names(columns: Sequence[str] | None, features: int | None) -> tuple[str, ...] | None:
    """The names that are given, or else x0, x1, ...; None as long as nobody knows how many."""
    if columns is None:
        return None if features is None else tuple(f"x{i}" for i in range(features))
    columns = (columns,) if isinstance(columns, str) else tuple(columns)
    if features is not None and len(columns) != features:
        raise ValueError(f"columns: expected {features} names, got {len(columns)}")
    if len(set(columns)) < len(columns):
        raise ValueError(f"columns: expected different names, got {', '.join(columns)}")
    return columns


def _vector(context: Context | None, names: Sequence[str] = ()) -> Tensor | None:
    """A context as a vector."""
    if context is None or isinstance(context, Tensor):
        return context
    if isinstance(context, Mapping):
        missing = [name for name in names if name not in context]
        if missing or not names:
            wanted = ", ".join(names) or "numbers, for its columns have no names"
            raise ValueError(f"context: expected {wanted}, got {', '.join(context) or 'none'}")
        context = [float(context[name]) for name in names]
    return torch.as_tensor(context, dtype=torch.float64)


def _of_module(
    module: nn.Module, columns: tuple[str, ...] | None, context: Context | None
) -> NamedDensity:
    like, noise = input_like(module), noise_of(module)
    c = _vector(context)
    if c is not None:
        c = c.to(like)
        c = c[0] if c.ndim == 2 and len(c) == 1 else c

    def draw(n: int, seed: int) -> Tensor:
        generator = torch.Generator(like.device).manual_seed(seed)
        with frozen(module):
            made = module(c)
            return torch.cat([made.sample((rows,), generator=generator) for rows in _batches(n)])

    def score(x: Tensor) -> Tensor:
        seed_noise(noise, 0)
        learns = torch.is_grad_enabled()
        with frozen(module), torch.set_grad_enabled(learns):
            made = module(c)
            return torch.cat([made.log_prob(part.to(like)).double() for part in _parts(x)])

    with frozen(module):
        shape = module(c).event_shape
    return NamedDensity(_checked(columns, shape), draw, score, (module, c))


def _of_distribution(thing: Distribution, columns: Sequence[str] | None) -> NamedDensity:
    if thing.batch_shape:
        raise ValueError(
            f"density: expected one distribution of vectors, got a batch of shape "
            f"{tuple(thing.batch_shape)}; torch.distributions.Independent makes it one"
        )
    free, kind = unvalidated(thing), _dtype(thing)

    def score(x: Tensor) -> Tensor:
        return torch.cat([log_density(free, part.to(kind)).double() for part in _parts(x)])

    names = _checked(_names(columns, None), thing.event_shape)
    return NamedDensity(names, seeded(thing.sample), score, (thing, None))


def _dtype(thing: Distribution) -> torch.dtype:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return thing.sample().dtype


def _of_pair(thing: Any, columns: tuple[str, ...] | None) -> NamedDensity:
    """The density of anything with `sample((n,))` and `log_prob(x)`."""
    draw = seeded(thing.sample)
    first = draw(2, 0)

    def score(x: Tensor) -> Tensor:
        return torch.cat([thing.log_prob(part.to(first)).double() for part in _parts(x)])

    return NamedDensity(_checked(columns, first.shape[1:]), draw, score)


def seeded(sample: Callable[..., Tensor]) -> Callable[[int, int], Tensor]:
    """Draws by a seed from what draws from torch's own generator, which is left as it was."""

    def draw(n: int, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torch.cat([sample(torch.Size((rows,))) for rows in _batches(n)])

    return draw


def _of_table(fitted: FittedTable, context: Context | None) -> NamedDensity:
    columns = fitted.columns
    for name in columns:
        kind = fitted.types[name]
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise ValueError(f"density: expected columns of numbers, got {name!r} of type {kind}")
    names = fitted.context_columns
    if context is not None and not isinstance(context, Mapping):
        context = dict(zip(names, torch.as_tensor(context).flatten().tolist(), strict=True))
    given = None if context is None else pa.table({name: [context[name]] for name in names})

    def contexts(n: int) -> pa.Table | None:
        return None if given is None else given.take(np.zeros(n, np.int64))

    def draw(n: int, seed: int) -> Tensor:
        table = fitted.sample(n, contexts(n), seed=seed)
        rows = [table[name].cast(pa.float64()).to_numpy() for name in columns]
        return torch.from_numpy(np.stack(rows, axis=1))

    def score(x: Tensor) -> Tensor:
        found = []
        for part in _parts(x.detach().double()):
            table = pa.table(dict(zip(columns, part.numpy().T, strict=True)))
            found.append(fitted.log_prob(table, contexts(len(part))))
        return torch.cat(found)

    return NamedDensity(columns, draw, score)


def _checked(columns: tuple[str, ...] | None, event_shape: Sequence[int]) -> tuple[str, ...]:
    """The names of the columns of vectors."""
    if len(event_shape) != 1:
        raise ValueError(f"density: expected one of vectors, got events of shape {event_shape}")
    found = _names(columns, event_shape[0])
    assert found is not None
    return found


def _batches(n: int) -> list[int]:
    return [min(BATCH_SIZE, n - start) for start in range(0, n, BATCH_SIZE)]


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    return cast(tuple[Tensor, ...], x.split(BATCH_SIZE))


def log_values(what: str, thing: Any, x: Tensor, columns: Sequence[str]) -> Tensor:
    """The log-density at rows x, float64, shape (n,), by numbers, a function or a density of it.

    Numbers are what a chain keeps beside its samples; a function need not be normalised.
    """
    if isinstance(thing, Tensor | np.ndarray):
        values = torch.as_tensor(thing)
    elif callable(thing) and not isinstance(thing, nn.Module):
        values = thing(x)
    else:
        values = NamedDensity.of(thing, columns).log_prob(x)
    if values.shape != x.shape[:1]:
        raise ValueError(f"{what}: expected shape ({len(x)},), got {tuple(values.shape)}")
    wrong = values.isnan() | (values == torch.inf)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"{what}: expected a number at row {row}, got {values[row].item()}")
    return values.double()


def rows_of(samples: Any, columns: Sequence[str] | None, n: int, seed: int) -> tuple[Any, Tensor]:
    """Samples as they are, shape (n, D), or drawn from a density: the columns, and rows."""
    if isinstance(samples, Tensor | np.ndarray):
        x = torch.as_tensor(samples)
        if x.ndim != 2 or not len(x):
            raise ValueError(f"samples: expected shape (n, features), got {tuple(x.shape)}")
        return _names(columns, x.shape[1]), x
    density = NamedDensity.of(samples, columns)
    return density.columns, density.sample(n, seed)


def log_shares(weights: Any, n: int) -> Tensor:
    """The logarithms of weights of samples, float64, zeros if None."""
    if weights is None:
        return torch.zeros(n, dtype=torch.float64)
    found = torch.as_tensor(weights, dtype=torch.float64)
    if found.shape != (n,) or not (found >= 0).all() or not 0 < found.sum() < torch.inf:
        raise ValueError(f"weights: expected {n} numbers from 0 on, not all 0")
    return found.log()
