"""What an analyst would try on an ordinary table; each gives the log-densities of its test rows.

Numbers on a grid: independent columns, the boosted chain and the vine know their cells, the others
take them for continuous and get the noise of :mod:`measure`. Codes are the boosted chain's for
those that know none: Gaussian, mixture, kernels and NSF. A missing number is taken from one of the
nearest rows where a method of numbers is fitted, and left out where it scores. Each method has
independent columns as a hundredth of it, so that no single row ruins it.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
import zuko
from margins import Margin, fit_margin, held_out
from measure import Codes, Numbers, Rows
from scipy.special import logsumexp, ndtri
from scipy.stats import truncnorm
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

SECONDS = 120.0
"""Of a core: no larger mixture is begun after so many, and NSF is not trained for longer."""
DEFENCE = 0.01
"""The share of independent columns in each method."""
FEW_ROWS = 2_000
"""Up to so many rows sizes and widths are chosen by five folds, beyond by a tenth."""
SIZES = tuple(2**i for i in range(9))
BANDWIDTHS = np.geomspace(1, 0.03, 14)


@dataclass
class Problem:
    """Rows to fit and rows to score, and what several methods need of them."""

    train: Rows
    test: Rows

    @cached_property
    def absent(self) -> list[int | None]:
        """Which code says that a number is missing, if one does."""
        gaps = np.isnan(self.train.numbers).any(0) | np.isnan(self.test.numbers).any(0)
        first = len(self.train.levels) - int(gaps.sum())
        found = iter(range(first, len(self.train.levels)))
        return [next(found) if gap else None for gap in gaps]

    @cached_property
    def margins(self) -> list[Margin]:
        """That of each number where there is one."""
        there = ~np.isnan(self.train.numbers)
        columns = zip(self.train.numbers.T, self.train.noised.T, there.T, strict=True)
        steps = self.train.steps
        return [fit_margin(x[o], e[o], s) for (x, e, o), s in zip(columns, steps, strict=True)]

    @cached_property
    def frequencies(self) -> list[Numbers]:
        """Of each code's levels, one row more of each."""
        pairs = zip(self.train.codes.T, self.train.levels, strict=True)
        return [(np.bincount(x, minlength=k) + 1) / (len(x) + k) for x, k in pairs]

    @cached_property
    def independent(self) -> Numbers:
        """The test rows' log-density if columns were independent."""
        total = np.zeros(len(self.test))
        for code, share in zip(self.test.codes.T, self.frequencies, strict=True):
            total += np.log(share[code])
        for x, margin in zip(self.test.numbers.T, self.margins, strict=True):
            there = ~np.isnan(x)
            total[there] += margin.log_prob(x[there])
        return total

    @cached_property
    def codes(self) -> Numbers:
        """The test rows' log-probability of codes, by boosted trees."""
        total = np.zeros(len(self.test))
        for i in range(len(self.train.levels)):
            y, share = self.test.codes[:, i], self.frequencies[i]
            total += classify(
                self.train.codes[:, :i],
                self.train.codes[:, i],
                share,
                self.test.codes[:, :i],
                levels=self.train.levels[:i],
            )[np.arange(len(y)), y]
        return total

    @cached_property
    def imputed(self) -> Numbers:
        """Training numbers with noise; for missing ones those of one of the five nearest rows."""
        rng, x = np.random.default_rng(2), self.train.noised.copy()
        gaps = np.isnan(x)
        ranks = np.where(gaps, np.nan, x.argsort(0).argsort(0) / len(x))
        for i in np.flatnonzero(gaps.any(0)):
            donors = np.flatnonzero(~gaps[:, i])
            for row in np.flatnonzero(gaps[:, i]):
                away = (ranks[donors] - ranks[row]) ** 2
                near = np.where(np.isnan(away), 1 / 6, away).sum(1).argsort()[:5]
                x[row, i] = self.train.noised[donors[rng.choice(near)], i]
        return x

    def standard(self, x: Numbers) -> tuple[Numbers, Numbers]:
        """Numbers less their means over deviations, and the logarithms of the slopes."""
        loc, scale = self.imputed.mean(0), self.imputed.std(0)
        return (x - loc) / scale, np.where(np.isnan(x), 0.0, -np.log(scale))

    def normal(self, x: Numbers) -> tuple[Numbers, Numbers]:
        """The normal scores of numbers by smooth margins, and the logarithms of the slopes."""
        z, slopes = np.full(x.shape, np.nan), np.zeros(x.shape)
        for i, margin in enumerate(self.margins):
            there = ~np.isnan(x[:, i])
            smooth, part = margin.kernels, x[there, i]
            z[there, i] = score = ndtri(smooth.cdf(part).clip(1e-12, 1 - 1e-12))
            slopes[there, i] = np.log(smooth.pdf(part)) + (score**2 + math.log(2 * math.pi)) / 2
        return z, slopes

    @cached_property
    def guard(self) -> Numbers:
        """The training rows' log-density if numbers were independent and smooth."""
        columns = zip(self.imputed.T, self.margins, strict=True)
        found: Numbers = sum(np.log(margin.kernels.pdf(x)) for x, margin in columns)
        return found

    @cached_property
    def groups(self) -> tuple[Codes, Codes]:
        """The level of the code that tells most of the numbers, of training and of test rows.

        -1 stands for levels of few rows, of which a method for all rows speaks.
        """
        x = self.imputed
        fit, judge = next(iter(held_out(len(x), 1)))
        least = max(30, 3 * (x.shape[1] + 1))
        best = (-np.inf, -np.ones(len(x), int), -np.ones(len(self.test), int))
        for code, tested in zip(
            [np.zeros(len(x), int), *self.train.codes.T],
            [np.zeros(len(self.test), int), *self.test.codes.T],
            strict=True,
        ):
            many = np.flatnonzero(np.bincount(code[fit]) >= least)
            group, place = (np.where(np.isin(part, many), part, -1) for part in (code, tested))
            value = 0.0
            for level in np.unique(group[judge]):
                rows = fit if level < 0 else fit[group[fit] == level]
                held = judge[group[judge] == level]
                value += defended(Gaussians.fit(x[rows], 1).score(x[held]), self.guard[held]).sum()
            if value > best[0]:
                best = (value, group, place)
        return best[1], best[2]

    def given_group(
        self, fit: Callable[[Numbers, Numbers], Callable[[Numbers], Numbers]]
    ) -> Numbers:
        """Scores the test rows by codes, and by numbers of a method for each group."""
        total = self.codes.copy()
        group, tested = self.groups
        for level in np.unique(tested):
            rows = group == level if level >= 0 else np.ones(len(group), bool)
            score = fit(self.imputed[rows], self.guard[rows])
            total[tested == level] += score(self.test.noised[tested == level])
        return total


def classify(x: Any, y: Codes, share: Numbers, x_test: Any, levels: tuple[int, ...]) -> Numbers:
    """Log-probabilities of classes by boosted trees, and as much of frequencies as is best."""
    flat = np.broadcast_to(np.log(share), (len(x_test), len(share)))
    if not x.shape[1] or len(np.unique(y)) < 2:
        return flat
    rng = np.random.default_rng(3)
    order = rng.permutation(len(y))[:20_000]
    held = order[: len(order) // (5 if len(y) < FEW_ROWS else 10)]
    fit = order[len(held) :]
    known = np.unique(y[fit])
    held = held[np.isin(y[held], known)]
    if len(known) < 2 or not len(held):
        return flat
    model = HistGradientBoostingClassifier(
        learning_rate=0.1 if len(fit) < 5000 else 0.2,
        max_iter=150 if len(fit) < 5000 else 50,
        max_leaf_nodes=15,
        min_samples_leaf=max(3, min(20, len(fit) // 40)),
        categorical_features=[i for i, k in enumerate(levels) if k > 2] or None,
        early_stopping=True,
        n_iter_no_change=5,
        random_state=0,
    )
    model.fit(x[fit], y[fit], X_val=x[held], y_val=y[held])

    def probability(rows: Any) -> Numbers:
        found = np.zeros((len(rows), len(share)))
        found[:, model.classes_.astype(int)] = model.predict_proba(rows)
        return found

    judged = probability(x[held])[np.arange(len(held)), y[held]]
    shares = (0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
    gains = [np.log(e * share[y[held]] + (1 - e) * judged).sum() for e in shares]
    e = shares[int(np.argmax(gains))]
    return np.log(e * share + (1 - e) * probability(x_test))


def independent(problem: Problem) -> Numbers:
    """Frequencies of levels and of values, kernels between these."""
    return problem.independent


@dataclass(frozen=True)
class Gaussians:
    """A mixture of Gaussians, of standardised numbers."""

    loc: Numbers
    scale: Numbers
    weights: Numbers
    means: Numbers
    covariances: Numbers

    @classmethod
    def fit(cls, x: Numbers, size: int) -> Gaussians:
        loc, scale = x.mean(0), x.std(0)
        scale[scale == 0] = 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged after 100 steps
            found = GaussianMixture(size, reg_covar=1e-5, random_state=0).fit((x - loc) / scale)
        return cls(loc, scale, found.weights_, found.means_, found.covariances_)

    def score(self, x: Numbers) -> Numbers:
        """Log-densities of what there is of each row."""
        z = (x - self.loc) / self.scale
        total = np.zeros(len(x))
        masks, which = np.unique(~np.isnan(x), axis=0, return_inverse=True)
        for i, there in enumerate(masks):
            if not there.any():
                continue
            rows = which.ravel() == i
            terms = []
            for w, mean, covariance in zip(self.weights, self.means, self.covariances, strict=True):
                factor = np.linalg.cholesky(covariance[np.ix_(there, there)])
                away = np.linalg.solve(factor, (z[rows][:, there] - mean[there]).T)
                log_det = np.log(np.diag(factor)).sum() + there.sum() * math.log(2 * math.pi) / 2
                terms.append(math.log(w) - 0.5 * (away**2).sum(0) - log_det)
            total[rows] = logsumexp(terms, axis=0) - np.log(self.scale[there]).sum()
        return total


def gaussian(problem: Problem) -> Numbers:
    """One Gaussian of all numbers, whatever the codes."""
    return problem.codes + Gaussians.fit(problem.imputed, 1).score(problem.test.noised)


def mixture(problem: Problem) -> Numbers:
    """Mixtures of Gaussians, of standardised numbers or normal scores, given a category."""
    end = time.process_time() + SECONDS

    def fit(x: Numbers, guard: Numbers) -> Callable[[Numbers], Numbers]:
        few = len(x) < FEW_ROWS
        best: tuple[float, Any, int, Any] = (-np.inf, None, 1, None)
        for view in (problem.standard, problem.normal):
            z, slopes = view(x)
            last = -np.inf
            for size in SIZES:
                if size > 1 and (size * (x.shape[1] + 1) > len(x) or time.process_time() > end):
                    break
                value, model = 0.0, None
                for rows, held in held_out(len(x), 5 if few else 1):
                    model = Gaussians.fit(z[rows], min(size, len(rows)))
                    judged = model.score(z[held]) + slopes[held].sum(1)
                    value += defended(judged, guard[held]).sum()
                if value > best[0]:
                    best = (value, view, size, model)
                if value < max(last, best[0] if size >= 8 else last):
                    break  # worse than a smaller one, or than one of the other view
                last = value
        _, view, size, model = best
        chosen = Gaussians.fit(view(x)[0], size) if few else model

        def score(rows: Numbers) -> Numbers:
            z, slopes = view(rows)
            return chosen.score(z) + slopes.sum(1)

        return score

    return problem.given_group(fit)


def kernels(problem: Problem) -> Numbers:
    """Kernels on standardised numbers or on normal scores, given a category."""

    def fit(x: Numbers, guard: Numbers) -> Callable[[Numbers], Numbers]:
        best: tuple[float, Any, float] = (-np.inf, None, 1.0)
        folds = list(held_out(len(x), 5 if len(x) < FEW_ROWS else 1))
        for view in (problem.standard, problem.normal):
            z, slopes = view(x)
            last = -np.inf
            for width in BANDWIDTHS:
                value = 0.0
                for rows, held in folds:
                    held = held[:500]
                    judged = score_kernels(z[rows], z[held], width) + slopes[held].sum(1)
                    value += defended(judged, guard[held]).sum()
                if value > best[0]:
                    best = (value, view, width)
                if value < last:
                    break
                last = value
        _, view, width = best
        z = view(x)[0]

        def score(rows: Numbers) -> Numbers:
            tested, slopes = view(rows)
            return score_kernels(z, tested, width) + slopes.sum(1)

        return score

    return problem.given_group(fit)


def score_kernels(z: Numbers, tested: Numbers, width: float) -> Numbers:
    """Log-densities of what there is of each row, by kernels around z."""
    total = np.zeros(len(tested))
    masks, which = np.unique(~np.isnan(tested), axis=0, return_inverse=True)
    for i, there in enumerate(masks):
        if there.any():
            rows = which.ravel() == i
            model = KernelDensity(bandwidth=width, rtol=1e-3).fit(z[:, there])
            total[rows] = model.score_samples(tested[rows][:, there])
    return total


@dataclass(frozen=True)
class Cells:
    """What a classifier tells of a number: one of its heaps, or between which quantiles it is."""

    margin: Margin
    heaps: Numbers
    edges: Numbers
    inside: Numbers

    @classmethod
    def fit(cls, x: Numbers, margin: Margin) -> Cells:
        heaps = x[:0]
        if margin.step:
            values, counts = np.unique(x, return_counts=True)
            heaps = values[(counts >= 0.02 * len(x)) & (counts >= 10)]
        rest = x[~np.isin(x, heaps)]
        count = min(20, max(1, len(rest) // 30))
        edges = np.quantile(rest, np.arange(1, count) / count) if count > 1 else x[:0]
        if margin.step:
            edges = (np.rint(edges / margin.step) + 0.5) * margin.step
        edges = np.unique(edges)
        edges = edges[edges < rest.max()] if len(rest) else edges
        upto = margin.cdf(edges - margin.step / 2)[1]
        inside = np.diff(np.concatenate([[0.0], upto, [1.0]]))
        if len(heaps):
            np.subtract.at(inside, np.searchsorted(edges, heaps), margin.prob(heaps))
        return cls(margin, heaps, edges, inside.clip(1e-12))

    @property
    def count(self) -> int:
        return len(self.heaps) + len(self.inside)

    def of(self, x: Numbers) -> tuple[Codes, Numbers]:
        """The class of each number, and its log-density given that."""
        place = np.searchsorted(self.edges, x)
        log_prob = self.margin.log_prob(x) - np.log(self.inside[place])
        place = place + len(self.heaps)
        for i, heap in enumerate(self.heaps):
            place[x == heap] = i
            log_prob[x == heap] = -math.log(self.margin.step)
        return place, log_prob


def boosted(problem: Problem) -> Numbers:
    """Each column given those before it by boosted trees: codes first, then cells of numbers."""
    train, test = problem.train, problem.test
    total = problem.codes.copy()
    for i, margin in enumerate(problem.margins):
        before = [np.hstack([part.codes, part.numbers[:, :i]]) for part in (train, test)]
        fit, score = (~np.isnan(part.numbers[:, i]) for part in (train, test))
        cells = Cells.fit(train.numbers[fit, i], margin)
        y = cells.of(train.numbers[fit, i])[0]
        share = (np.bincount(y, minlength=cells.count) + 1) / (len(y) + cells.count)
        place, inside = cells.of(test.numbers[score, i])
        chosen = classify(before[0][fit], y, share, before[1][score], levels=train.levels)
        total[score] += chosen[np.arange(len(place)), place] + inside
    return total


def forest(problem: Problem) -> Numbers:
    """The leaves of an adversarial random forest; `arfpy` grows it, leaves are scored here."""
    from arfpy import arf

    train, test = problem.train, problem.test
    n, size = problem.imputed.shape
    scale = problem.imputed.std(0)
    frame = pd.DataFrame(problem.imputed, columns=[f"x{i}" for i in range(size)])
    for i, code in enumerate(train.codes.T):
        frame[f"c{i}"] = pd.Categorical(code, categories=range(train.levels[i]))
    vars(np).setdefault("in1d", np.isin)  # arfpy 0.1.1 calls what NumPy 2.4 no longer has
    np.random.seed(0)  # noqa: NPY002  arfpy draws from it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = arf.arf(
            frame, num_trees=30, verbose=False, random_state=0, min_node_size=max(5, n // 500)
        )
        found = model.forde()
    tested = test.noised.copy()
    leaves = model.bnds[["tree", "nodeid", "cvg"]].drop_duplicates().reset_index(drop=True)
    leaves["leaf"] = np.arange(len(leaves))
    cont = found["cnt"].merge(leaves, on=["tree", "nodeid"])
    log_cover = np.log(leaves["cvg"].to_numpy() / model.num_trees)
    numbers = {}
    for i in range(size):
        part = cont[cont["variable"] == f"x{i}"].set_index("leaf").reindex(np.arange(len(leaves)))
        sd = part["sd"].fillna(0.0).to_numpy().clip(1e-3 * scale[i])
        numbers[i] = (*(part[key].to_numpy() for key in ("mean", "min", "max")), sd)
    probability = []
    for i, levels in enumerate(train.levels):
        share = problem.frequencies[i]
        table = np.zeros((len(leaves), levels))
        part = found["cat"].merge(leaves, on=["tree", "nodeid"])
        part = part[part["variable"] == f"c{i}"]
        table[part["leaf"].to_numpy(), part["value"].to_numpy(int)] = part["prob"].to_numpy()
        rows = leaves["cvg"].to_numpy()[:, None] * n
        probability.append(np.log((table * rows + share) / (rows + 1)))
    total = np.empty(len(test))
    for start in range(0, len(test), 200):
        part = slice(start, start + 200)
        terms = np.tile(log_cover, (len(tested[part]), 1))
        for i, table in enumerate(probability):
            terms += table[:, test.codes[part, i]].T
        for i, (mean, low, high, sd) in numbers.items():
            x = tested[part, i][:, None]
            there = ~np.isnan(x[:, 0])
            rows, columns = np.nonzero(there[:, None] & ((x <= low) | (x > high)))
            terms[rows, columns] = -np.inf
            rows, columns = np.nonzero(there[:, None] & np.isfinite(terms))
            terms[rows, columns] += truncnorm.logpdf(
                x[rows, 0],
                ((low - mean) / sd)[columns],
                ((high - mean) / sd)[columns],
                mean[columns],
                sd[columns],
            )
        total[part] = logsumexp(terms, axis=1)
    return total


def vine(problem: Problem) -> Numbers:
    """A vine copula over the margins of independent columns; codes and heaps are discrete."""
    import pyvinecopulib as pv

    train, test = problem.train, problem.test
    kinds: list[str] = []
    upper: list[tuple[Numbers, Numbers]] = []
    lower: list[tuple[Numbers, Numbers]] = []
    rng = np.random.default_rng(4)
    own = len(train.levels) - sum(code is not None for code in problem.absent)
    for i in range(own):
        ends = np.concatenate([[0.0], np.cumsum(problem.frequencies[i][_order(problem, i)])])
        rank = np.argsort(_order(problem, i))
        kinds.append("d")
        codes = [rank[part.codes[:, i]] for part in (train, test)]
        upper.append((ends[codes[0] + 1], ends[codes[1] + 1]))
        lower.append((ends[codes[0]], ends[codes[1]]))
    for i, margin in enumerate(problem.margins):
        code = problem.absent[i]
        gone = 0.0 if code is None else problem.frequencies[code][1]
        peak = margin.share * margin.counts.max() / margin.counts.sum() if margin.step else 0.0
        discrete = code is not None or peak >= 0.02
        ends = []
        for part in (train, test):
            x = part.numbers[:, i]
            there = ~np.isnan(x)
            low, high = np.zeros(len(x)), np.full(len(x), gone)
            low[there], high[there] = (gone + (1 - gone) * end for end in margin.cdf(x[there]))
            if not discrete:
                high = low + rng.random(len(x)) * (high - low)
            ends.append((low, high))
        kinds.append("d" if discrete else "c")
        upper.append((ends[0][1], ends[1][1]))
        lower.append((ends[0][0], ends[1][0]))

    def data(part: int) -> Numbers:
        ends = [pair[part] for pair in upper]
        ends += [pair[part] for pair, kind in zip(lower, kinds, strict=True) if kind == "d"]
        return np.asfortranarray(np.stack(ends, 1).clip(1e-9, 1 - 1e-9))

    controls = pv.FitControlsVinecop(
        family_set=[pv.indep, pv.gaussian, pv.clayton, pv.gumbel, pv.frank],
        selection_criterion="bic",
        trunc_lvl=5,
        num_threads=1,
    )
    rows = np.random.default_rng(5).permutation(len(train))[:5_000]
    model = pv.Vinecop.from_data(data(0)[rows], var_types=kinds, controls=controls)
    found: Numbers = model.pdf(data(1))
    found = np.where(np.isfinite(found), found, 0.0).clip(1e-300)
    return problem.independent + np.log(found)


def _order(problem: Problem, code: int) -> Codes:
    """A code's levels by the mean of the number that differs most between them."""
    x, y, levels = problem.imputed, problem.train.codes[:, code], problem.train.levels[code]
    ranks = x.argsort(0).argsort(0) / len(x)
    counts = np.bincount(y, minlength=levels)
    means = np.stack([np.bincount(y, r, levels) / counts.clip(1) for r in ranks.T], 1)
    between = (counts[:, None] * (means - 0.5) ** 2).sum(0)
    return np.argsort(np.where(counts, means[:, between.argmax()], 0.5), kind="stable")


def spline_flow(problem: Problem) -> Numbers:
    """Zuko's NSF of numbers given codes, for `SECONDS`; only where no number is missing."""
    x, context = problem.imputed, _one_hot(problem.train)
    loc, scale = x.mean(0), x.std(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    flow = zuko.flows.NSF(x.shape[1], context.shape[1], transforms=5, hidden_features=(128, 128))
    z = torch.from_numpy((x - loc) / scale).float()
    held = max(len(z) // 10, 1)
    order = torch.randperm(len(z))
    validation, train = order[:held], order[held:]
    optimizer = torch.optim.Adam(flow.parameters(), 1e-3)
    best, patience, kept = math.inf, 0, copy.deepcopy(flow.state_dict())
    for _ in _epochs(500):
        for batch in train[torch.randperm(len(train))].split(256):
            optimizer.zero_grad()
            (-flow(context[batch]).log_prob(z[batch]).mean()).backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimizer.step()
        now = -_score_flow(flow, z[validation], context[validation]).mean()
        patience += 1
        if now < best:
            best, patience, kept = now, 0, copy.deepcopy(flow.state_dict())
        if patience == 10:
            break
    flow.load_state_dict(kept)
    tested = torch.from_numpy((problem.test.noised - loc) / scale).float()
    found = _score_flow(flow, tested, _one_hot(problem.test)) - np.log(scale).sum()
    return problem.codes + found


def _epochs(most: int) -> Iterator[int]:
    end = time.process_time() + SECONDS
    for epoch in range(most):
        if time.process_time() > end:
            return
        yield epoch


def _one_hot(rows: Rows) -> torch.Tensor:
    parts = [np.eye(k)[code] for code, k in zip(rows.codes.T, rows.levels, strict=True)]
    return torch.from_numpy(np.hstack([np.zeros((len(rows), 0)), *parts])).float()


@torch.no_grad()
def _score_flow(flow: Any, z: torch.Tensor, context: torch.Tensor) -> Numbers:
    pairs = zip(z.split(2000), context.split(2000), strict=True)
    found: Numbers = torch.cat([flow(c).log_prob(part) for part, c in pairs]).double().numpy()
    return found


RIVALS: dict[str, Callable[[Problem], Numbers]] = {
    "independent": independent,
    "Gaussian": gaussian,
    "mixture": mixture,
    "kernels": kernels,
    "boosted chain": boosted,
    "forest": forest,
    "vine": vine,
    "NSF": spline_flow,
}


def fits(name: str, problem: Problem) -> bool:
    """Whether a method is for such a table: NSF needs numbers, all of them there."""
    size = problem.train.numbers.shape[1]
    dominate = size >= len(problem.train.levels)
    return name != "NSF" or (dominate and not any(c is not None for c in problem.absent))


def scores(name: str, problem: Problem) -> Numbers:
    """Log-densities of the test rows, in nats per unit of the columns."""
    return defended(RIVALS[name](problem), problem.independent) + problem.test.units


def defended(found: Numbers, guard: Numbers) -> Numbers:
    """Log-densities of a method that has another one as a hundredth of it."""
    return np.logaddexp(math.log(1 - DEFENCE) + found, math.log(DEFENCE) + guard)
