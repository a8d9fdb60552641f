"""The density of some columns of a table: exact where the order allows it, else estimated."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from maskedflow.columns.column import Column
from maskedflow.columns.rows import Layout, Rows
from maskedflow.columns.schema import Schema
from maskedflow.training.randomness import row_seed
from maskedflow.transforms import LazyComposedTransform, LazyTransform, NormalScores

from .density import Head, TableDensity, by_blocks, concatenated
from .heaps import first_steps
from .missing import call_layers
from .proposal import Pieces, Points, Proposal

REFERENCE = 2**14
"""The draws of the density to which the proposal is fitted."""
FARTHEST = 25.0
"""Normal scores beyond which no draw is looked at: of data that is a million sigmas."""
DRAWS = 2**12
"""The draws of a block."""


class Marginal(NamedTuple):
    """Log-densities of some columns, one a row, in nats and radians.

    Args:
        log_prob: The log-densities.
        standard_error: Their standard errors, 0 where they are exact.
        effective: How many independent draws of the unknown columns the estimate is worth,
            infinity where it is exact.
    """

    log_prob: Tensor
    standard_error: Tensor
    effective: Tensor


@torch.no_grad()
def log_marginal(
    density: TableDensity,
    rows: Rows,
    given: Pieces,
    c: Tensor | None = None,
    n_samples: int = 1000,
    seed: int = 0,
) -> Marginal:
    r"""Computes the log-density of some codes, values and angles of each row.

    What the order puts behind all that is given drops out: the unknown codes behind the last one
    that is given, angles if none is given and no value, values if none is given. If only codes
    remain unknown, of `n_samples` combinations at most, their probabilities are summed up, and the
    result is exact. Otherwise the unknown u are drawn from a proposal q,

    .. math:: p(g) = \int p(g, u) \, du \approx \frac{1}{S} \sum_{s=1}^S w_s, \qquad
        w_s = \frac{p(g, u_s)}{q(u_s \mid g)}, \qquad u_s \sim q(\cdot \mid g)

    The proposal is the conditional of a mixture fitted to draws of the density itself, whose
    values have margins made normal (:class:`Proposal`). With
    :math:`S_e = (\sum w)^2 / \sum w^2` effective draws the standard error of the log-density is

    .. math:: \sqrt{\frac{S / S_e - 1}{S - 1}}

    by the delta method. Rows that share what is given share an estimate, of draws that depend on
    it and the seed alone: neither other rows nor their order matter. Only a context makes a
    difference, as the proposal is fitted to draws given the contexts of all rows.

    The cost is `n_samples` densities for each distinct row of what is given.

    Args:
        density: The density, in double precision and evaluation mode.
        rows: The rows, all of them possible.
        given: The pieces whose density is wanted.
        c: The contexts of the rows, with shape (n, context), or none.
        n_samples: The draws for each distinct row.
        seed: Seed of the draws.

    References:
        | Monte Carlo theory, methods and examples (Owen, 2013), chapter 9
        | https://artowen.su.domains/mc/

    Example:
        >>> from maskedflow.tables import AutoregressiveCategorical, Layout
        >>> layout = Layout((2, 3), (), (), (), (), ())
        >>> density = TableDensity(layout, AutoregressiveCategorical([2, 3]), None, None).eval()
        >>> rows = density.build_rows(2, codes=torch.tensor([[0, 1], [1, 1]]))
        >>> first = log_marginal(density, rows, Pieces(codes=(0,)))
        >>> round(first.log_prob.exp().sum().item(), 6), first.standard_error.tolist()
        (1.0, [0.0, 0.0])
    """
    if not len(rows):
        return Marginal(*(torch.zeros(0, dtype=torch.float64) for _ in range(3)))
    first, which = _distinct(rows, given, c)
    c = None if c is None else c[first]
    (found,) = Marginals(density, c, n_samples, seed)(rows[first], [given], c)
    return Marginal(*(part[which] for part in found))


class Marginals:
    """The log-densities of any columns of rows whose contexts are like those in c."""

    def __init__(
        self,
        density: TableDensity,
        c: Tensor | None,
        n_samples: int,
        seed: int,
        reference: int | None = None,
    ) -> None:
        self.density, self.c = density, c
        self.n_samples, self.seed = n_samples, seed
        self.reference = reference or REFERENCE

    @cached_property
    def propose(self) -> Proposer:
        """What draws unknown columns; it takes a while to fit."""
        return Proposer(self.density, self.c, self.seed, self.reference)

    def __call__(self, rows: Rows, givens: Sequence[Pieces], c: Tensor | None) -> list[Marginal]:
        """Sums up or estimates the densities of some pieces of rows, and of others of them."""
        layout, found = self.density.layout, []
        waiting: dict[tuple[int, Head], list[tuple[Marginal, Pieces, Pieces]]] = {}
        for given in givens:
            log_prob, error = (torch.zeros(len(rows), dtype=torch.float64) for _ in range(2))
            one = Marginal(log_prob, error, torch.full_like(error, math.inf))
            found.append(one)
            for head, index in heads_of(layout, rows, given):
                wanted = unknown(layout, given, head)
                if self.sums_up(wanted):
                    here = None if c is None else c[index]
                    log_prob[index] = by_blocks(
                        partial(self._sum, wanted.codes, head), rows[index], here
                    )
                    continue
                for i in index.tolist():
                    waiting.setdefault((i, head), []).append((one, given, wanted))
        for (i, head), asked in waiting.items():
            row, here = rows[i : i + 1], None if c is None else c[i]
            candidates = [
                self.propose.candidates(
                    row, here, given, wanted, self.n_samples, self._generator(row, given, here)
                )
                for _, given, wanted in asked
            ]
            weights = log_weights(self.density, candidates, here, head).split(self.n_samples)
            for (one, _, _), each in zip(asked, weights, strict=True):
                for part, number in zip(one, _mean(each), strict=True):
                    part[i] = number
        return found

    def sums_up(self, wanted: Pieces) -> bool:
        """Whether what is unknown are codes that have few enough combinations."""
        count = math.prod(self.density.layout.levels[k] for k in wanted.codes)
        return not (wanted.values or wanted.angles or count > self.n_samples)

    def _sum(self, codes: tuple[int, ...], head: Head, rows: Rows, c: Tensor | None) -> Tensor:
        return log_combinations(self.density, rows, c, codes, head).logsumexp(dim=1)

    def _generator(self, row: Rows, given: Pieces, c: Tensor | None) -> torch.Generator:
        key = _key(row, given, None if c is None else c[None])
        return torch.Generator().manual_seed(row_seed(key, self.seed))


class Candidates(NamedTuple):
    """Rows of which some pieces were drawn.

    Args:
        rows: The rows.
        placed: The same, whose known values on a grid are at places in their cells.
        log_rest: What makes log-weights of the rows' log-densities.
    """

    rows: Rows
    placed: Rows
    log_rest: Tensor


def log_weights(
    density: TableDensity, candidates: Sequence[Candidates], c: Tensor | None, head: Head
) -> Tensor:
    """The log-weights of candidates that have one context, one after another."""
    rows = concatenated([each.placed for each in candidates])
    log_rest = torch.cat([each.log_rest for each in candidates])
    corner = torch.zeros_like(density.offsets[:1])
    found = []
    for part in torch.arange(len(rows)).split(DRAWS):
        here = None if c is None else c.expand(len(part), -1)
        found.append(density.log_head(rows[part], here, corner, head))
    return torch.where(log_rest.isneginf(), -math.inf, torch.cat(found) + log_rest)


def heads_of(layout: Layout, rows: Rows, given: Pieces) -> Iterator[tuple[Head, Tensor]]:
    """The least heads of the density that all that is given is in, and the rows of each."""
    values = rows.observed[:, list(given.values)].any(dim=1)
    angles = values | rows.angles_observed[:, list(given.angles)].any(dim=1)
    every = len(layout.levels)
    for head in (
        Head(max(given.codes, default=-1) + 1, angles=False, values=False),
        Head(every, angles=True, values=False),
        Head(every, angles=True, values=True),
    ):
        index = ((angles == head.angles) & (values == head.values)).nonzero()[:, 0]
        if len(index):
            yield head, index


def unknown(layout: Layout, given: Pieces, head: Head) -> Pieces:
    """What of a head is not given."""
    values = len(layout.value_state) * head.values
    angles = len(layout.angle_state) * head.angles
    pairs = (head.codes, given.codes), (values, given.values), (angles, given.angles)
    return Pieces(*(tuple(k for k in range(n) if k not in known) for n, known in pairs))


def combinations_of(layout: Layout, codes: tuple[int, ...]) -> Tensor:
    """All combinations of levels of some codes, one a row."""
    every = list(product(*(range(layout.levels[k]) for k in codes)))
    return torch.tensor(every, dtype=torch.long).view(len(every), len(codes))


def log_combinations(
    density: TableDensity, rows: Rows, c: Tensor | None, codes: tuple[int, ...], head: Head
) -> Tensor:
    """The log-density of a head with each combination of some codes, (n, L), all rows at once."""
    found = []
    for levels in combinations_of(density.layout, codes):
        made = rows.codes.clone()
        made[:, list(codes)] = levels
        found.append(density.log_head(replace(rows, codes=made), c, density.offsets, head))
    return torch.stack(found, dim=1)


class Proposer:
    """Draws for unknown columns, from a mixture that was fitted to draws of the density."""

    def __init__(self, density: TableDensity, c: Tensor | None, seed: int, reference: int) -> None:
        self.density, layout = density, density.layout
        self.step = density.dequantize.step.double()
        generator = torch.Generator().manual_seed(seed)
        given = None
        if c is not None:
            given = c[torch.randint(len(c), (reference,), generator=generator)]
        rows = density.sample(reference, given, generator)
        noise = torch.rand(rows.values.shape, dtype=torch.float64, generator=generator)
        values = rows.values + noise * self.step
        self.front: list[LazyTransform] = []
        if layout.value_state:
            maps = first_steps(layout, density.heaps)
            line, _ = call_layers(maps, values, None, rows.observed)
            self.front = [*maps, NormalScores.fit(line, rows.observed)]
        z = self.scores(values, rows.observed)[0]
        # What is absent is filled in with noise, here and in the draws: their density is known.
        fill = torch.randn(z.shape, dtype=torch.float64, generator=generator)
        turn = torch.rand(rows.angles.shape, dtype=torch.float64, generator=generator)
        z = torch.where(rows.observed, z, fill)
        if given is not None:
            self.loc, self.scale = given.mean(dim=0), given.std(dim=0).clamp(min=1e-3)
            z = torch.cat([z, (given - self.loc) / self.scale], dim=1)
        angles = torch.where(rows.angles_observed, rows.angles, (2 * turn - 1) * math.pi)
        self.mixture = Proposal(Points(rows.codes, z, angles), layout.levels, seed)

    def scores(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """The normal scores of values, and the ladj of that map."""
        if not self.front:
            return values, values.new_zeros(len(values))
        return call_layers(self.front, values, None, observed)

    def candidates(
        self,
        row: Rows,
        c: Tensor | None,
        given: Pieces,
        wanted: Pieces,
        n: int,
        generator: torch.Generator,
    ) -> Candidates:
        """Draws what is wanted of a row given some of it, n times."""
        known = torch.zeros(len(self.step), dtype=torch.bool)
        known[list(given.values)] = True
        offsets, point, pieces = self.density.offsets, *self.point(row, c, given)
        drawn, log_q = self.mixture.draw(point, pieces, wanted, n, generator)
        made, log_fill, observed = self.rows(row, drawn, wanted)
        # One place of the cells for each draw, in turn.
        offset = torch.where(known & made.observed, offsets[torch.arange(n) % len(offsets)], 0)
        ladj = self.scores(made.values, observed)[1]
        far = (drawn.values[:, list(wanted.values)].abs() > FARTHEST).any(dim=1)
        log_rest = torch.where(far, -math.inf, log_fill - ladj - log_q)
        return Candidates(made, replace(made, values=made.values + offset), log_rest)

    def point(self, row: Rows, c: Tensor | None, given: Pieces) -> tuple[Points, Pieces]:
        """A row in normal scores, its context behind it, and which pieces of it are known."""
        z = self.scores(row.values + 0.5 * self.step, row.observed)[0]  # the middles of cells
        known = Pieces(
            given.codes,
            tuple(k for k in given.values if row.observed[0, k]),
            tuple(k for k in given.angles if row.angles_observed[0, k]),
        )
        if c is not None:
            context = tuple(range(z.shape[1], z.shape[1] + len(c)))
            known = replace(known, values=known.values + context)
            z = torch.cat([z, ((c - self.loc) / self.scale)[None]], dim=1)
        return Points(row.codes[0], z[0], row.angles[0]), known

    def rows(self, row: Rows, drawn: Points, wanted: Pieces) -> tuple[Rows, Tensor, Tensor]:
        """The rows that draws make, the log-density of what fills gaps, which values are drawn."""
        n = len(drawn.codes)
        made = self.density.build_rows(n, codes=drawn.codes)
        values, angles = (part.repeat(n, 1) for part in (row.values, row.angles))
        observed = torch.zeros_like(made.observed)
        log_fill = torch.zeros(n, dtype=torch.float64)
        if wanted.values:
            index = list(wanted.values)
            observed[:, index] = made.observed[:, index]
            z = drawn.values[:, : values.shape[1]]
            x = LazyComposedTransform(*self.front)().inv(z.clamp(-FARTHEST, FARTHEST))
            values = torch.where(observed, x, values)
            values[:, index] = torch.where(observed[:, index], values[:, index], 0)
            normal = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
            log_fill += torch.where(made.observed, 0, normal)[:, index].sum(dim=1)
        if wanted.angles:
            index = list(wanted.angles)
            known = made.angles_observed[:, index]
            angles[:, index] = torch.where(known, drawn.angles[:, index], 0)
            log_fill -= (~known).sum(dim=1) * math.log(2 * math.pi)
        return replace(made, values=values, angles=angles), log_fill, observed


def _key(rows: Rows, given: Pieces, c: Tensor | None) -> Tensor:
    """What is given of each row, side by side."""
    parts = [
        rows.codes[:, list(given.codes)].double(),
        rows.values[:, list(given.values)],
        rows.angles[:, list(given.angles)],
    ]
    parts += [] if c is None else [c.double()]
    return torch.cat(parts, dim=1) + 0.0  # -0.0 + 0.0 is 0.0


def _distinct(rows: Rows, given: Pieces, c: Tensor | None) -> tuple[Tensor, Tensor]:
    """The first of all rows that share what is given, and for each row which of them it is."""
    key = _key(rows, given, c)
    if not key.shape[1]:
        return torch.zeros(1).long(), torch.zeros(len(rows)).long()
    unique, which = key.unique(dim=0, return_inverse=True)
    first = torch.full((len(unique),), len(rows))
    return first.scatter_reduce(0, which, torch.arange(len(rows)), "amin"), which


def _mean(log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The logarithm of the mean weight, its standard error, and the effective draws."""
    n = len(log_weights)
    mean = log_weights.logsumexp(dim=0) - math.log(n)
    effective = 1 / log_weights.softmax(dim=0).square().sum()
    if not mean.isfinite():
        return mean, torch.tensor(math.inf), torch.tensor(0.0)
    return mean, ((n / effective - 1).clamp(min=0) / max(n - 1, 1)).sqrt(), effective


def given_columns(schema: Schema, names: Collection[str]) -> tuple[Column, ...]:
    """The columns that are known when some are: of a duplicate, the column that it repeats.

    Constants are left out, for they say nothing.

    Raises:
        ValueError: If there is no such column.

    Example:
        >>> import pyarrow as pa
        >>> from maskedflow.tables import Schema
        >>> a = [0.5, 2.0, 4.5]
        >>> schema = Schema.infer(pa.table({"a": a, "again": a, "one": [1, 1, 1]}))
        >>> [column.name for column in given_columns(schema, ["again", "one"])]
        ['a']
    """
    known = {column.name: column for column in schema.columns}
    for name in names:
        if name not in known:
            raise ValueError(f"given: expected columns of X, got {name!r}")
    wanted = {known[name].of or name for name in names}
    return tuple(column for column in schema.free if column.name in wanted)


def pieces_of(schema: Schema, columns: Collection[Column]) -> Pieces:
    """The codes, values and angles that some columns became."""
    names = {column.name for column in columns}
    parts = schema.coded, schema.valued, schema.angular
    return Pieces(
        *(tuple(i for i, column in enumerate(part) if column.name in names) for part in parts)
    )


def units_of(schema: Schema, columns: Collection[Column], rows: Rows) -> Tensor:
    """What makes a log-density of some columns one in their units, in nats, with shape (n,)."""
    total = torch.zeros(len(rows), dtype=torch.float64)
    code = {column.name: k for k, column in enumerate(schema.coded)}
    for column in columns:
        units = torch.tensor(column.code_units, dtype=torch.float64)
        level = rows.codes[:, code[column.name]] if column.name in code else 0
        total = total + units[level]
    return total
