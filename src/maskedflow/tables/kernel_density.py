"""Kernel densities of numbers given codes, with bandwidths under which rows left out are likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from threadpoolctl import threadpool_limits
from torch import Tensor

from maskedflow.kernels.cache import compiled

from .products import NEVER, MixtureOfProducts

CENTRES = 5_000
"""Most rows that get a kernel."""
_NUMBERS = 2_000_000
"""Most numbers that the components have in all."""
_WORK = 2e7
"""Most terms of a gradient: rows left out, times kernels, times features and codes."""
_STEPS = 60
_STARTS = (0.7, 0.95)
"""What each width starts from: the correlation of a number with its kernel's centre."""
_SPREAD = 0.1
"""What is taken from a mean log-likelihood for widths of features that differ, see below."""
_BOUNDS = (-7.0, 12.0)
"""The logits of correlations: at most 1 - 6e-6."""
_FAR = 40.0


Widths = list[tuple[float, list[float], list[float]]]
"""Of each width the logarithm of its weight, and what it is for features and for codes."""


def fit_kernels(
    z: Tensor,
    c: Tensor | None,
    observed: Tensor,
    weight: Tensor,
    present: Sequence[int | None],
    levels: Sequence[int] = (),
    seed: int = 0,
    settled: Widths | None = None,
) -> tuple[MixtureOfProducts, Widths]:
    r"""Fits a kernel density of numbers that have standard scores, given codes.

    A row k gives a component for each of two widths m,

    .. math:: p_{kd}(z) = \mathcal{N}(z \mid a_{md} z_{kd}, 1 - a_{md}^2), \qquad
        P_{kj}(b) = (1 - \lambda_{mj}) [b = b_{kj}] + \lambda_{mj} P_j(b),

    which leave the margins as they are, whatever the widths: with a = 0 and :math:`\lambda = 1` a
    column is independent of all others. A number that is absent has a = 0. Widths, and the weight
    of each, make rows likeliest, given their codes, if each is left out in turn. Of many rows some
    have kernels, and of these some are left out.

    Args:
        z: The rows, shape (n, D), absent numbers are ignored.
        c: The context: one-hot codes, then further numbers; shape (n, C).
        observed: Whether each number is observed, shape (n, D).
        weight: How much each row counts, shape (n,).
        present: As in :class:`MixtureOfProducts`.
        levels: How many levels each code has.
        seed: Of the choice of rows.
        settled: The widths; None if they are to be found.

    Returns:
        The density, and its widths, with which it is fitted to other rows at once.

    References:
        | Multivariate binary discrimination by the kernel method (Aitchison and Aitken, 1976)
        | Cross-validation and the estimation of conditional probability densities
        | (Hall, Racine and Li, 2004)
    """
    total, features = sum(levels), len(present)
    given = 0 if c is None else c.shape[1] - total
    widths = len(_STARTS)
    most = _NUMBERS // (widths * (total + 2 * (features + given)))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(z), generator=generator)[: max(min(CENTRES, most), 2)]
    z, observed, weight = z[order].double(), observed[order], weight[order].double()
    c = z.new_zeros(len(z), 0) if c is None else c[order].double()
    numbers = c[:, total:]
    # Further numbers of the context are standardised, and observed.
    loc = numbers.mean(dim=0) if given else numbers.new_zeros(0)
    spread = (numbers - loc).square().mean(dim=0).sqrt()
    spread = torch.where(spread > 0, spread, 1)
    x = torch.cat([torch.where(observed, z, 0), (numbers - loc) / spread], dim=1)
    seen = torch.cat([observed, torch.ones_like(numbers, dtype=torch.bool)], dim=1)
    starts = [0, *accumulate(levels)]
    parts = c[:, :total].split(list(levels), dim=1)
    codes = [s + part.argmax(dim=1) for s, part in zip(starts, parts, strict=False)]
    places = torch.stack(codes, dim=1) if codes else torch.zeros(len(z), 0, dtype=torch.long)
    share = weight / weight.sum()
    margin = (share @ c[:, :total] * len(z) + 1 / max(total, 1)) / (len(z) + 1)
    found = settled or _Widths(x, seen, places, margin, share, features).fit()
    mixture = MixtureOfProducts(widths * len(z), present, levels, given)
    same = torch.zeros(len(z), total, dtype=torch.float64)
    same.scatter_(1, places, 1.0)
    column = torch.repeat_interleave(torch.arange(len(levels)), torch.tensor(levels).long())
    log_weight, log_share, locs, scales = [], [], [], []
    for log_part, near, mixing in found:
        a = torch.where(seen, torch.tensor(near, dtype=torch.float64), 0.0)
        lam = torch.tensor(mixing, dtype=torch.float64)[column]
        log_weight.append(share.log() + log_part)
        log_share.append(((1 - lam) * same + lam * margin).log().clamp(min=NEVER))
        locs.append(a * x)
        scales.append((1 - a.square()).sqrt())
    mixture.log_weight.copy_(torch.cat(log_weight))
    mixture.log_share.copy_(torch.cat(log_share))
    back = torch.cat([torch.zeros(features), loc]), torch.cat([torch.ones(features), spread])
    mixture.loc.copy_(torch.cat(locs) * back[1] + back[0])
    mixture.scale.copy_(torch.cat(scales) * back[1])
    return mixture, found


class _Widths:
    """The widths of kernels as a problem of optimisation."""

    def __init__(
        self, x: Tensor, seen: Tensor, codes: Tensor, margin: Tensor, share: Tensor, features: int
    ) -> None:
        self.x, self.seen = x.T.contiguous().numpy(), seen.T.contiguous().numpy()
        self.codes, self.margin = codes.T.contiguous().numpy(), margin.numpy()
        self.features = features
        self.share, self.log_share = share.numpy(), share.log().numpy()
        self.size = x.shape[1] + codes.shape[1]
        terms = len(_STARTS) * len(x) * (self.size + 4)
        self.rows = min(len(x), max(int(_WORK / terms), 20))

    def fit(self) -> Widths:
        """For each width the logarithm of its weight, and what it is for features and codes."""
        columns = len(self.x)
        start: NDArray[np.float64] = np.zeros((len(_STARTS), 1 + self.size))
        for row, first in zip(start, _STARTS, strict=True):
            row[1 : 1 + columns] = math.log(first / (1 - first))
            row[1 + columns :] = -1.0
        bounds = [(-7.0, 7.0), *[_BOUNDS] * columns, *[(-7.0, 7.0)] * (self.size - columns)]
        with threadpool_limits(1):
            found = minimize(
                self.loss,
                start.ravel(),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds * len(_STARTS),
                options={"maxiter": _STEPS, "maxfun": _STEPS + 10, "ftol": 1e-6},
            )
        theta = torch.from_numpy(found.x.reshape(len(_STARTS), -1))
        parts, near = theta[:, 0].log_softmax(dim=0).tolist(), theta[:, 1:].sigmoid()
        return [
            (part, row[:columns], row[columns:])
            for part, row in zip(parts, near.tolist(), strict=True)
        ]

    def loss(self, theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Minus the mean log-likelihood of rows left out, and its gradient."""
        theta = theta.reshape(len(_STARTS), -1)
        columns = len(self.x)
        logits = theta[:, 0] - theta[:, 0].max()
        part = np.exp(logits) / np.exp(logits).sum()
        near = expit(theta[:, 1:])
        gradient = np.zeros_like(theta)
        total = _leave_out(
            self.x,
            self.seen,
            self.codes,
            self.margin,
            self.log_share,
            self.share,
            self.features,
            self.rows,
            np.log(part),
            np.ascontiguousarray(near[:, :columns]),
            np.ascontiguousarray(near[:, columns:]),
            gradient,
        )
        mass = self.share[: self.rows].sum()
        gradient[:, 0] -= part * gradient[:, 0].sum()
        gradient[:, 1:] *= near * (1 - near)
        loss, gradient = -total / mass, -gradient / mass
        # Widths are not further from each other than rows show them to be.
        price = _SPREAD / self.rows
        for some in (slice(1, 1 + columns), slice(1 + columns, None)):
            if theta[:, some].size:
                centred = theta[:, some] - theta[:, some].mean(axis=1, keepdims=True)
                loss += price * float((centred**2).sum())
                gradient[:, some] += 2 * price * centred
        return loss, gradient.ravel()


@compiled
def _leave_out(
    x: Any,
    seen: Any,
    codes: Any,
    margin: Any,
    log_share: Any,
    share: Any,
    features: int,
    rows: int,
    log_part: Any,
    near: Any,
    mixing: Any,
    gradient: Any,
) -> float:
    """Adds up the weighed log-densities of rows, each left out; the gradient is added to.

    Features have shape (columns, n), and codes (places, n): the innermost loops are over kernels.
    """
    columns, n = x.shape
    width, places = near.shape[0], len(codes)
    given = columns > features or places > 0
    terms, weights = np.empty((width, n)), np.zeros((width, n))
    total = 0.0
    for i in range(rows):
        top, first = -np.inf, -np.inf
        for m in range(width):
            t = terms[m]
            for k in range(n):
                t[k] = log_part[m] + log_share[k]
            for j in range(places):
                b = codes[j, i]
                p = margin[b]
                equal = math.log(1 - mixing[m, j] + mixing[m, j] * p)
                other = math.log(mixing[m, j] * p)
                for k in range(n):
                    t[k] += equal if codes[j, k] == b else other
            for d in range(features, columns):
                _add_kernels(t, x[d], seen[d], x[d, i], near[m, d])
            if given:
                for k in range(n):
                    weights[m, k] = t[k]
                weights[m, i] = -np.inf
                first = max(first, weights[m].max())
            for d in range(features):
                if seen[d, i]:
                    _add_kernels(t, x[d], seen[d], x[d, i], near[m, d])
            t[i] = -np.inf
            top = max(top, t.max())
        mass = _exponentiate(terms, top)
        total += share[i] * (top + math.log(mass))
        if given:
            prior = _exponentiate(weights, first)
            total -= share[i] * (first + math.log(prior))
            for m in range(width):
                for k in range(n):
                    weights[m, k] *= share[i] / prior
        for m in range(width):
            r, q = terms[m], weights[m]
            for k in range(n):
                r[k] *= share[i] / mass
            for d in range(columns):
                if seen[d, i] and d >= features:
                    gradient[m, 1 + d] -= _slope(q, x[d], seen[d], x[d, i], near[m, d])
                if seen[d, i]:
                    gradient[m, 1 + d] += _slope(r, x[d], seen[d], x[d, i], near[m, d])
            for k in range(n):
                r[k] -= q[k]
            gradient[m, 0] += r.sum()
            for j in range(places):
                b, same, rest = codes[j, i], 0.0, 0.0
                for k in range(n):
                    same += r[k] if codes[j, k] == b else 0.0
                    rest += r[k] if codes[j, k] != b else 0.0
                p, mixed = margin[b], mixing[m, j]
                gradient[m, 1 + columns + j] += same * (p - 1) / (1 - mixed + mixed * p)
                gradient[m, 1 + columns + j] += rest / mixed
    return total


@compiled
def _add_kernels(t: Any, centres: Any, seen: Any, x: float, near: float) -> None:
    """Adds the log-densities of a number, except for what all have, to those of kernels."""
    variance = 1 - near * near
    constant, half, plain = -0.5 * math.log(variance), 0.5 / variance, 0.5 * x * x
    for k in range(len(t)):
        r = x - near * centres[k]
        t[k] += constant - half * r * r if seen[k] else -plain


@compiled
def _exponentiate(terms: Any, top: float) -> float:
    """Takes the logarithms of terms for these, in units of the largest; their sum."""
    total = 0.0
    for m in range(terms.shape[0]):
        for k in range(terms.shape[1]):
            t = terms[m, k] - top
            terms[m, k] = math.exp(t) if t > -_FAR else 0.0
            total += terms[m, k]
    return total


@compiled
def _slope(r: Any, centres: Any, seen: Any, x: float, near: float) -> float:
    """What a correlation does to the log-densities of kernels, weighed."""
    total, variance = 0.0, 1 - near * near
    for k in range(len(r)):
        e = x - near * centres[k]
        slope = near + e * centres[k] - near * e * e / variance
        total += r[k] * slope if seen[k] else 0.0
    return total / variance
