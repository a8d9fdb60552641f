"""A density of named columns, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .context import Context, refuse
from .faces import Draw, Origin, Score, face_of


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

    `NamedDensity.of(thing, columns=None, context=None, x=None)` makes one; `columns`, `features`,
    `sample(n, seed=0)` and `log_prob(x)` are what it has. Functions that ask something of a
    posterior take what `of` takes.

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
    draw: Draw = field(repr=False)
    score: Score = field(repr=False)
    origin: Origin | None = field(default=None, repr=False)
    held_out: HeldOut | None = None

    @classmethod
    def of(
        cls,
        thing: Any,
        columns: Sequence[str] | None = None,
        context: Context | None = None,
        x: Any = None,
    ) -> NamedDensity:
        """Gives a density the face of named columns.

        Args:
            thing: A flow or another lazy distribution; a `torch.distributions.Distribution` of
                vectors or of numbers; a run (:func:`maskedflow.load_run`); a fitted
                :class:`~maskedflow.DensityEstimator` whose columns are numbers; a posterior, ours
                or sbi's, or anything else with `sample((n,))` and `log_prob(x)`; or one of these
                already.
            columns: Names for what has none, `x0`, `x1`, ... if None. Of what has names, the order
                in which they are wanted.
            context: What a flow, an estimator or a run is conditional on: a vector, a mapping from
                names, or a frame of one row.
            x: The observation of a posterior.

        Raises:
            TypeError: If it is no density.
            ValueError: If columns do not fit, a context or an observation is missing or needless,
                or a column is not one of numbers.
        """
        if isinstance(thing, NamedDensity):
            refuse(context=context, x=x)
        else:
            thing = NamedDensity(*face_of(thing, columns, context, x))
        found: NamedDensity = thing
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
