"""A mixture of columns of all kinds, to draw what is unknown of a row given what is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from .categories import one_hot
from .mixture import clusters

COMPONENTS, ROWS_A_COMPONENT = 32, 20
"""The most components, and the rows that each needs for each number."""
STEPS = 10
"""Steps of expectation-maximisation."""
FREEDOM = 8
"""The degrees of freedom of the values' Student-t distributions."""
BROAD = 0.1
"""The share of draws that look at nothing that is known."""
RIDGE = 1e-8


@dataclass(frozen=True)
class Pieces:
    """Some of the codes, values and angles of a row: the places of those that are meant."""

    codes: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    angles: tuple[int, ...] = ()


@dataclass(frozen=True)
class Points:
    """Rows of codes, (n, K), values, (n, E), and angles in radians, (n, A), none absent."""

    codes: Tensor
    values: Tensor
    angles: Tensor


class Proposal:
    r"""A mixture with independent codes and angles, and normal values, within each component.

    .. math:: q(k, z, \theta) = \sum_j \pi_j \, \prod_i f_{ji}(k_i) \,
        \mathcal{N}(z \mid \mu_j, \Sigma_j) \, \prod_i C(\theta_i \mid \nu_{ji}, \rho_{ji})

    with wrapped Cauchy distributions C. All its conditionals are mixtures of the same kind. To draw
    from them safely, normal distributions are widened to Student-t ones of the same scale, and a
    tenth of the draws comes from a component that looks at nothing. It is fitted to points whose
    values are near to standard normal ones, by expectation-maximisation from clusters.

    References:
        | Statistical Analysis with Missing Data (Little and Rubin, 2019), section 14.2, for
            codes and values in one mixture
        | Safe and Effective Importance Sampling (Owen and Zhou, 2000), for the defensive part

    Example:
        >>> z = torch.randn(500, 2, dtype=torch.float64).cumsum(dim=1)
        >>> points = Points(torch.zeros(500, 0).long(), z, torch.zeros(500, 0).double())
        >>> proposal = Proposal(points, (), seed=0)
        >>> known, generator = Points(points.codes[0], z[0], z[0, :0]), torch.Generator()
        >>> drawn, log_q = proposal.draw(
        ...     known, Pieces(values=(0,)), Pieces(values=(1,)), 5, generator
        ... )
        >>> drawn.values.shape, log_q.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, points: Points, levels: Sequence[int], seed: int) -> None:
        self.levels = tuple(levels)
        z, (n, features) = points.values, points.values.shape
        count = max(1, min(COMPONENTS, n // (ROWS_A_COMPONENT * (features + 2))))
        ones = one_hot(points.codes, levels, z.dtype)
        embedded = torch.cat([z, points.angles.sin(), points.angles.cos(), ones], dim=1)
        some = count > 1 and embedded.shape[1]
        self._fit(
            points, ones, clusters(embedded, count, seed % 2**32) if some else z.new_ones(n, 1)
        )
        sizes = len(levels), features, points.angles.shape[1]
        every = Pieces(*(tuple(range(size)) for size in sizes))
        for _ in range(STEPS - 1):
            self._fit(points, ones, self._log_terms(points, every).softmax(dim=-1))
        self._add_broad()

    def _fit(self, points: Points, ones: Tensor, shares: Tensor) -> None:
        """Takes the components' moments, given each row's shares in them, (n, J)."""
        z, mass = points.values, shares.sum(dim=0)
        self.log_weights = (mass / mass.sum()).clamp(min=1e-12).log()
        each = shares / mass.clamp(min=1e-12)
        self.loc = each.T @ z
        centred = z - self.loc[:, None]
        covariance = torch.einsum("nj,jnd,jne->jde", each, centred, centred)
        pooled = torch.einsum("j,jde->de", self.log_weights.exp(), covariance)
        prior = z.shape[1] + 2
        rows = mass[:, None, None]
        covariance = (rows * covariance + prior * pooled) / (rows + prior)
        self.covariance = covariance + RIDGE * torch.eye(z.shape[1], dtype=z.dtype)
        self.log_shares = []
        for counts in (shares.T @ ones).split(self.levels, dim=1):
            smooth = (counts + 1 / counts.shape[1]) / (mass[:, None] + 1)
            self.log_shares.append(smooth.log())
        x, y = each.T @ points.angles.cos(), each.T @ points.angles.sin()
        self.centre, self.length = torch.atan2(y, x), torch.hypot(x, y).clamp(max=0.999)

    def _add_broad(self) -> None:
        """Puts a component first that knows the columns' margins only."""
        eye = torch.eye(self.loc.shape[1], dtype=self.loc.dtype)
        share = self.log_weights.exp()
        self.log_shares = [
            torch.cat([(share @ part.exp()).log()[None], part]) for part in self.log_shares
        ]
        self.covariance = torch.cat([eye[None], self.covariance])
        self.log_weights, self.loc, self.centre, self.length = (
            torch.cat([torch.zeros_like(part[:1]), part])
            for part in (self.log_weights, self.loc, self.centre, self.length)
        )

    def _log_terms(self, points: Points, pieces: Pieces) -> Tensor:
        """The log-density of some pieces of rows in each component, and its weight, (n, J)."""
        total = self.log_weights + self._log_others(points, pieces)
        if pieces.values:
            index = list(pieces.values)
            factor = torch.linalg.cholesky(self.covariance[:, index][:, :, index])
            centred = (points.values[:, index] - self.loc[:, None, index]).mT
            v = torch.linalg.solve_triangular(factor, centred, upper=False)
            log_scale = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
            total = total - 0.5 * v.square().sum(dim=1).T - log_scale
        return total

    def _log_others(self, points: Points, pieces: Pieces) -> Tensor:
        """The same of codes and angles alone, without the weight."""
        total = points.values.new_zeros(len(points.values), len(self.log_weights))
        for k in pieces.codes:
            total = total + self.log_shares[k][:, points.codes[:, k]].T
        for a in pieces.angles:
            turn = points.angles[:, a, None] - self.centre[:, a]
            r = self.length[:, a]
            spread = 1 + r.square() - 2 * r * turn.cos()
            total = total + (1 - r.square()).log() - spread.log() - math.log(2 * math.pi)
        return total

    def draw(
        self, known: Points, given: Pieces, wanted: Pieces, n: int, generator: torch.Generator
    ) -> tuple[Points, Tensor]:
        """Draws some pieces of a row, which has no batch dimension, given others.

        Returns:
            Rows with the pieces that were drawn, the others as they are, and the log-densities of
            the draws, with shape (n,).
        """
        row = Points(known.codes[None], known.values[None], known.angles[None])
        log_shares = self._log_terms(row, given)[0]
        rest = math.log1p(-BROAD) + log_shares[1:].log_softmax(dim=-1)
        log_shares = torch.cat([rest.new_tensor([math.log(BROAD)]), rest])
        chosen = log_shares.exp().multinomial(n, replacement=True, generator=generator)
        codes, angles = (part.repeat(n, 1) for part in (row.codes, row.angles))
        values = row.values.repeat(n, 1)
        for k in wanted.codes:
            share = self.log_shares[k].exp()[chosen]
            codes[:, k] = share.multinomial(1, generator=generator)[:, 0]
        for a in wanted.angles:
            u = torch.rand(n, dtype=values.dtype, generator=generator)
            r = self.length[chosen, a]
            turn = 2 * torch.atan((1 - r) / (1 + r) * torch.tan(math.pi * (u - 0.5)))
            turn = torch.remainder(turn + self.centre[chosen, a] + math.pi, 2 * math.pi)
            angles[:, a] = turn - math.pi
        log_q = log_shares
        if wanted.values:
            index = list(wanted.values)
            loc, factor = self._conditional(row.values[0], given.values, wanted.values)
            noise = torch.randn(n, len(index), dtype=values.dtype, generator=generator)
            square = torch.randn(n, FREEDOM, dtype=values.dtype, generator=generator).square()
            noise = noise / square.mean(dim=1, keepdim=True).sqrt()
            for j in range(len(loc)):
                mine = chosen == j
                values[mine.nonzero(), torch.tensor(index)] = loc[j] + noise[mine] @ factor[j].T
            centred = (values[:, index] - loc[:, None]).mT
            v = torch.linalg.solve_triangular(factor, centred, upper=False)
            log_q = log_q + _log_student(v.square().sum(dim=1).T, len(index))
            log_q = log_q - factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        drawn = Points(codes, values, angles)
        return drawn, (log_q + self._log_others(drawn, wanted)).logsumexp(dim=-1)

    def _conditional(
        self, z: Tensor, given: tuple[int, ...], wanted: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Means, (J, U), and factors, (J, U, U), of some values given others."""
        known, index = list(given), list(wanted)
        loc, covariance = self.loc[:, index], self.covariance[:, index][:, :, index]
        if known:
            factor = torch.linalg.cholesky(self.covariance[:, known][:, :, known])
            cross = self.covariance[:, known][:, :, index]
            slopes = torch.cholesky_solve(cross, factor)
            loc = loc + ((z[known] - self.loc[:, known])[:, None] @ slopes)[:, 0]
            covariance = covariance - cross.mT @ slopes
        # Rounding may take away what is hardly there.
        covariance = covariance + RIDGE * torch.eye(len(index), dtype=z.dtype)
        return loc, cast(Tensor, torch.linalg.cholesky(covariance))


def _log_student(distance: Tensor, features: int) -> Tensor:
    """The log-density of a standard Student-t distribution at a squared distance."""
    half = (FREEDOM + features) / 2
    constant = math.lgamma(half) - math.lgamma(FREEDOM / 2)
    constant -= features / 2 * math.log(FREEDOM * math.pi)
    return constant - half * (distance / FREEDOM).log1p()
