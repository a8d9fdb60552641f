"""Draws of what is unknown of rows: exact where the order allows it, else resampled."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from maskedflow.columns.rows import Layout, Rows
from maskedflow.flows.flow import BLOCK
from maskedflow.training.randomness import derive_seed

from .density import Head, TableDensity, by_blocks, concatenated
from .marginal import (
    Marginals,
    combinations_of,
    heads_of,
    log_combinations,
    log_weights,
    unknown,
)
from .proposal import Pieces


@dataclass(frozen=True)
class Known:
    """What is known of the codes, values and angles of n rows.

    Args:
        codes: Which codes are known, bool, shape (n, K).
        values: Which values are, or that there is none as their state is known, shape (n, D).
        angles: Which angles are, alike, shape (n, A).
        excluded: A level that an unknown code does not have, -1 for none, shape (n, K).
    """

    codes: Tensor
    values: Tensor
    angles: Tensor
    excluded: Tensor


class Completed(NamedTuple):
    """Completed rows, and of each how many independent draws its candidates were worth.

    These are without end if the row was drawn exactly.
    """

    rows: Rows
    effective: Tensor


@torch.no_grad()
def sample_unknown(
    density: TableDensity,
    rows: Rows,
    known: Known,
    c: Tensor | None = None,
    n: int = 1,
    n_candidates: int = 1000,
    seed: int = 0,
) -> Completed:
    r"""Draws what is unknown of each row n times, given what is known.

    What comes behind all that is known in the order of codes, angles and numbers is drawn as any
    row is. If what is unknown before that is codes only, of `n_candidates` combinations at most, a
    combination is drawn by its probability: all is exact. Otherwise S candidates u are drawn from
    the proposal q of :func:`log_marginal`, and of these one with a probability in proportion to

    .. math:: w_s = \frac{p(g, u_s)}{q(u_s \mid g)}

    Draws of one row are independent given its candidates, S of which are at least ten times n.

    Args:
        density: The density, in double precision and evaluation mode.
        rows: The rows, all of them possible; what is unknown of them does not matter.
        known: What is known of each.
        c: The contexts of the rows, with shape (n, context), or none.
        n: The draws for each row.
        n_candidates: The candidates, if there have to be some.
        seed: Seed of the draws.

    Returns:
        The n draws of the first row, then those of the next one, and so on.

    References:
        | Using the SIR Algorithm to Simulate Posterior Distributions (Rubin, 1988)

    Example:
        >>> from maskedflow.tables import AutoregressiveCategorical
        >>> layout = Layout((2, 3), (), (), (), (), ())
        >>> density = TableDensity(layout, AutoregressiveCategorical([2, 3]), None, None).eval()
        >>> rows, none = density.build_rows(2), torch.ones(2, 0)
        >>> known = Known(torch.tensor([[True, False]] * 2), none, none, -torch.ones(2, 2))
        >>> sample_unknown(density, rows, known, n=3).rows.codes[:, 0]
        tensor([0, 0, 0, 0, 0, 0])
    """
    marginals = Marginals(density, c, max(n_candidates, 10 * n), seed)
    effective = torch.full((len(rows),), math.inf, dtype=torch.float64)
    drawn, places = [], []
    parts = known.codes, known.values, known.angles, known.excluded
    pattern = torch.cat([part.long() for part in parts], dim=1)
    for one in pattern.unique(dim=0):
        index = (pattern == one).all(dim=1).nonzero()[:, 0]
        there = [part[index[0]] for part in parts]
        given = Pieces(*(tuple(part.nonzero()[:, 0].tolist()) for part in there[:3]))
        excluded = {k: level for k, level in enumerate(there[3].long().tolist()) if level >= 0}
        # A code that does not have some level is as good as given: it cannot come behind.
        ahead = replace(given, codes=(*given.codes, *excluded))
        for head, some in heads_of(density.layout, rows[index], ahead):
            here = index[some]
            group = _Group(marginals, given, excluded, head, n)
            made, effective[here] = group(rows[here], here, None if c is None else c[here])
            again = None if c is None else c[here].repeat_interleave(n, dim=0)
            generator = torch.Generator().manual_seed(derive_seed(seed, int(here[0])))
            drawn.append(density.complete(made, head, again, generator))
            places.append((here[:, None] * n + torch.arange(n)).flatten())
    order = torch.cat(places).argsort()
    return Completed(concatenated(drawn)[order], effective)


@dataclass(frozen=True)
class _Group:
    """Rows of which the same pieces are known, as far as a head of the density reaches."""

    marginals: Marginals
    given: Pieces
    excluded: dict[int, int]
    head: Head
    n: int

    def __call__(self, rows: Rows, places: Tensor, c: Tensor | None) -> tuple[Rows, Tensor]:
        """Each row n times, its head complete, and what its candidates were worth."""
        layout: Layout = self.marginals.density.layout
        wanted = unknown(layout, self.given, self.head)
        exact = torch.full((len(rows),), math.inf, dtype=torch.float64)
        if not (wanted.codes or wanted.values or wanted.angles):
            return self._again(rows), exact
        if self.marginals.sums_up(wanted):
            return self._of_combinations(rows, places, c, wanted.codes)
        drawn, effective = [], []
        for i, place in enumerate(places.tolist()):
            generator = self._generator(place)
            here, count = None if c is None else c[i], self.marginals.n_samples
            candidates = self.marginals.propose.candidates(
                rows[i : i + 1], here, self.given, wanted, count, generator
            )
            weights = log_weights(self.marginals.density, [candidates], here, self.head)
            share, lost = _shares(self._without_excluded(weights, candidates.rows.codes))
            effective.append(torch.where(lost, 0, 1 / share.square().sum()))
            chosen = share.multinomial(self.n, replacement=True, generator=generator)
            drawn.append(candidates.rows[chosen])
        return concatenated(drawn), torch.stack(effective)

    def _of_combinations(
        self, rows: Rows, places: Tensor, c: Tensor | None, codes: tuple[int, ...]
    ) -> tuple[Rows, Tensor]:
        """Draws a combination of levels by its probability."""
        density = self.marginals.density
        every = combinations_of(density.layout, codes)
        full = rows.codes.new_zeros(len(every), rows.codes.shape[1])
        full[:, list(codes)] = every

        def weigh(rows: Rows, c: Tensor | None) -> Tensor:
            found = log_combinations(density, rows, c, codes, self.head)
            return self._without_excluded(found, full)

        chosen, effective = [], []
        for part in torch.arange(len(rows)).split(BLOCK):  # a block has numbers for each level
            share, lost = _shares(by_blocks(weigh, rows[part], None if c is None else c[part]))
            effective.append(torch.where(lost, 0.0, math.inf).double())
            for each, place in zip(share, places[part].tolist(), strict=True):
                generator = self._generator(place)
                chosen.append(each.multinomial(self.n, replacement=True, generator=generator))
        again = self._again(rows)
        filled = again.codes.clone()
        filled[:, list(codes)] = every[torch.cat(chosen)]
        made = density.build_rows(len(filled), filled)
        made = replace(
            made,
            values=torch.where(made.observed, again.values, 0),
            angles=torch.where(made.angles_observed, again.angles, 0),
        )
        return made, torch.cat(effective)

    def _without_excluded(self, log_weights: Tensor, codes: Tensor) -> Tensor:
        """The log-weights, minus infinity where a code has a level that it cannot have."""
        for k, level in self.excluded.items():
            log_weights = torch.where(codes[:, k] == level, -math.inf, log_weights)
        return log_weights

    def _again(self, rows: Rows) -> Rows:
        return rows[torch.arange(len(rows)).repeat_interleave(self.n)]

    def _generator(self, place: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.marginals.seed, place, 1))


def _shares(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Log-weights, (*, S), as shares, all alike where no weight is a float above 0; and where."""
    log_weights = torch.where(log_weights.isnan(), -math.inf, log_weights)
    lost = log_weights.isneginf().all(dim=-1)
    return torch.where(lost[..., None], 0, log_weights).softmax(dim=-1), lost
