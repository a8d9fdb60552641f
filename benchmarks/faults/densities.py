"""Try the search of `DensityEstimator` on tables whose density is known.

    OMP_NUM_THREADS=1 python benchmarks/faults/densities.py [part of a name ...]

Prints each kind that is tried, what was expected and what came; the last line counts.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from harness import asked, each, tell

from maskedflow import DensityEstimator

Rng = np.random.Generator
Found = tuple[bool, str]
CASES: dict[str, Callable[[], Found]] = {}


def case(name: str) -> Callable[[Callable[[], Found]], Callable[[], Found]]:
    """Registers a case under a name."""

    def register(call: Callable[[], Found]) -> Callable[[], Found]:
        CASES[name] = call
        return call

    return register


def within(found: float, wanted: float, gap: float) -> Found:
    """Whether a mean log-density is at most so much below another."""
    return found > wanted - gap, f"{found:.3f}, expected {wanted:.3f} - {gap:g} at least"


def text(codes: np.ndarray) -> pd.DataFrame:
    """Codes as strings."""
    return pd.DataFrame(
        {f"c{k}": [f"v{v:03d}" for v in column] for k, column in enumerate(codes.T)}
    )


# ---------------------------------------------------------------------------- categories


def independent(rng: Rng, n: int, levels: list[int]) -> np.ndarray:
    """Independent columns, the levels of which are not equally frequent."""
    return np.stack([rng.choice(k, n, p=rng.dirichlet(np.ones(k))) for k in levels], axis=1)


def counts_score(train: np.ndarray, test: np.ndarray, levels: list[int]) -> float:
    """The mean log-probability by counts of single columns and a half."""
    total = 0.0
    for k, size in enumerate(levels):
        n = np.bincount(train[:, k], minlength=size) + 0.5
        total += np.log(n / n.sum())[test[:, k]].mean()
    return total


def add_independent(n: int, levels: list[int]) -> None:
    @case(f"independent categories, {n} rows of {len(levels)} columns, {levels[0]} levels first")
    def _() -> Found:
        rng = np.random.default_rng(n)
        both = independent(rng, n + 4000, levels)
        train, test = both[:n], both[n:]
        seen = np.all([np.isin(test[:, k], train[:, k]) for k in range(len(levels))], axis=0)
        found = DensityEstimator().fit(text(train)).score(text(test[seen]))
        return within(found, counts_score(train, test[seen], levels), 0.03)


for size, shape in ((300, [3, 4, 5]), (300, [12, 2, 2, 2, 8]), (3000, [2] * 12), (3000, [100, 30])):
    add_independent(size, shape)


def add_hierarchy(n: int, stores: int) -> None:
    @case(f"{stores} stores in regions in countries, {n} rows")
    def _() -> Found:
        rng = np.random.default_rng(0)
        store = rng.integers(0, stores, n)
        x = np.stack([store, store % 12, store % 12 % 3], axis=1)
        x = x[:, rng.permutation(3)] if stores == 60 else x
        drawn = DensityEstimator().fit(text(x)).sample(4000, random_state=0)
        seen = {tuple(row) for row in text(x).to_numpy()}
        wrong = np.mean([tuple(row) not in seen for row in drawn.to_numpy()])
        return wrong < 0.05, f"{wrong:.1%} of samples are no such store, expected below 5%"


for size, number in ((1000, 24), (10_000, 100), (3000, 60)):
    add_hierarchy(size, number)


def add_xor(n: int, flags: int, noise: float) -> None:
    @case(f"XOR of {flags} flags, {n} rows, wrong in {noise:.0%}")
    def _() -> Found:
        rng = np.random.default_rng(1)
        x = rng.integers(0, 2, (n + 4000, flags))
        x[:, -1] = x[:, :-1].sum(1) % 2
        x[:, -1] ^= rng.random(len(x)) < noise
        found = DensityEstimator().fit(text(x[:n])).score(text(x[n:]))
        entropy = -sum(p * np.log(p) for p in (noise, 1 - noise) if p)
        return within(found, -(flags - 1) * np.log(2) - entropy, 0.05)


for size, number, share in ((300, 3, 0.0), (3000, 3, 0.1), (3000, 4, 0.0)):
    add_xor(size, number, share)


def add_dummies(n: int, flags: int) -> None:
    @case(f"{flags} dummies of a category, {n} rows")
    def _() -> Found:
        k = np.random.default_rng(0).integers(0, flags, n)
        drawn = DensityEstimator().fit(np.eye(flags, dtype=int)[k]).sample(4000, random_state=0)
        valid = (drawn.sum(1) == 1).mean()
        return valid > 0.97, f"{valid:.1%} of samples have one 1, expected above 97%"


for size, number in ((300, 4), (1000, 10), (3000, 25)):
    add_dummies(size, number)


def add_table(n: int, levels: int) -> None:
    @case(f"two dependent categories of {levels} levels, {n} rows")
    def _() -> Found:
        p = np.random.default_rng(3)
        rows, first = p.dirichlet(np.full(levels, 0.3), size=levels), p.dirichlet(np.ones(levels))
        a = p.choice(levels, n + 4000, p=first)
        b = np.array([p.choice(levels, p=rows[i]) for i in a])
        both = np.stack([a, b], axis=1)
        train, test = both[:n], both[n:]
        ok = np.isin(test[:, 0], train[:, 0]) & np.isin(test[:, 1], train[:, 1])
        test = test[ok]
        counts = np.full((levels, levels), 0.5)
        np.add.at(counts, tuple(train.T), 1)
        one, given = counts.sum(1) / counts.sum(), counts / counts.sum(1, keepdims=True)
        wanted = np.log(one[test[:, 0]] * given[tuple(test.T)]).mean()
        return within(DensityEstimator().fit(text(train)).score(text(test)), wanted, 0.05)


for size, number in ((300, 5), (300, 12), (3000, 20), (10_000, 20)):
    add_table(size, number)


@case("a category given a context, 2000 rows")
def _() -> Found:
    rng = np.random.default_rng(0)
    t = rng.normal(size=6000)
    p = 1 / (1 + np.exp(-3 * t))
    x = text((rng.random(6000) < p).astype(int)[:, None])
    context = pd.DataFrame({"t": t})
    estimator = DensityEstimator().fit(x[:2000], context=context[:2000])
    truth = (p * np.log(p) + (1 - p) * np.log1p(-p))[2000:].mean()
    return within(estimator.score(x[2000:], context=context[2000:]), truth, 0.05)


def add_gaps(n: int, flow: str) -> None:
    @case(f"three of four columns missing together, {n} rows, flow {flow}")
    def _() -> Found:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(n, 4))
        x[:, 1:] += x[:, :1]
        x[rng.random(n) < 0.3, 1:] = np.nan
        drawn = DensityEstimator(flow, missing="model").fit(x).sample(4000, random_state=0)
        gaps = np.isnan(drawn[:, 1:]).sum(1)
        part = ((gaps > 0) & (gaps < 3)).mean()
        return part < 0.03, f"{part:.1%} of samples miss some of them, expected below 3%"


add_gaps(300, "gaussian")
add_gaps(1000, "auto")

# ---------------------------------------------------------------------------- narrow modes


def add_modes(name: str, centres: np.ndarray, sd: np.ndarray, share: np.ndarray, n: int) -> None:
    @case(f"narrow modes: {name}")
    def _() -> Found:
        rng = np.random.default_rng(0)
        features = centres.shape[1]

        def draw(rows: int) -> np.ndarray:
            k = rng.choice(len(centres), rows, p=share)
            return centres[k] + sd[k, None] * rng.normal(size=(rows, features))

        train, test = draw(n), draw(4000)
        z = (test[:, None] - centres) / sd[:, None]
        each = -0.5 * (z**2).sum(2) - features * (np.log(sd) + 0.5 * np.log(2 * np.pi))
        truth = np.logaddexp.reduce(each + np.log(share), axis=1).mean()
        return within(DensityEstimator(work=10).fit(train).score(test), truth, 0.1)


rng = np.random.default_rng(5)
add_modes(
    "widths 1 and 1e-6", np.array([[0.0], [50.0]]), np.array([1.0, 1e-6]), np.full(2, 0.5), 2000
)
add_modes(
    "unequal shares in 3 dimensions",
    1e4 * rng.normal(size=(3, 3)),
    np.array([0.1, 1e-2, 1.0]),
    np.array([0.05, 0.25, 0.7]),
    3000,
)
add_modes(
    "16 in a plane", rng.uniform(-5, 5, (16, 2)), np.full(16, 1e-4), np.full(16, 1 / 16), 3000
)
add_modes("two at 1e9", np.array([[0.0], [1e9]]), np.full(2, 1.0), np.full(2, 0.5), 1000)


@case("narrow modes that shift with a context")
def _() -> Found:
    rng = np.random.default_rng(0)
    t = rng.normal(size=6000)
    x = (np.where(rng.random(6000) < 0.5, 0, 1e3) + t + 0.01 * rng.normal(size=6000))[:, None]
    context = pd.DataFrame({"t": t})
    found = DensityEstimator(work=10).fit(x[:2000], context=context[:2000])
    truth = -np.log(2) - np.log(0.01) - 0.5 * np.log(2 * np.pi) - 0.5
    return within(found.score(x[2000:], context=context[2000:]), truth, 0.1)


# ---------------------------------------------------------------------------- repeats and weights


def banana(rng: Rng, n: int) -> np.ndarray:
    """Rows of a bent density."""
    x = rng.normal(size=(n, 3))
    x[:, 1] += 0.5 * x[:, 0] ** 2
    x[:, 2] = 0.5 * x[:, 2] + x[:, 1]
    return x


def add_repeated(name: str, times: Callable[[Rng, int], np.ndarray], weights: bool) -> None:
    @case(f"repeated rows: {name}")
    def _() -> Found:
        rng = np.random.default_rng(0)
        x = banana(rng, 500)
        count = times(rng, 500)
        rows, weight = (x, count) if weights else (x.repeat(count.astype(int), axis=0), None)
        plain = DensityEstimator("gaussian").fit(rows, sample_weight=weight)
        auto = DensityEstimator(work=10).fit(rows, sample_weight=weight)
        fresh = banana(rng, 4000)
        return within(auto.score(fresh), plain.score(fresh), 0.2)


add_repeated("each ten times", lambda rng, n: np.full(n, 10), False)
add_repeated("a bootstrap", lambda rng, n: np.bincount(rng.integers(0, n, n), minlength=n), False)
add_repeated("geometric", lambda rng, n: rng.geometric(0.2, n), False)
add_repeated("lognormal weights", lambda rng, n: rng.lognormal(0, 1, n), True)


def same(
    name: str, one: Callable[[], DensityEstimator], other: Callable[[], DensityEstimator]
) -> None:
    @case(f"the same density: {name}")
    def _() -> Found:
        x = banana(np.random.default_rng(9), 200)
        gap = np.abs(one().score_samples(x) - other().score_samples(x)).max()
        return gap == 0, f"scores differ by {gap:g}, expected 0"


def variants() -> Iterator[None]:
    x = banana(np.random.default_rng(0), 250)
    w = np.random.default_rng(1).lognormal(size=250)
    whole = np.arange(250) % 3
    for flow in ("gaussian", "auto"):

        def fit(
            x: np.ndarray = x, w: np.ndarray | None = None, flow: str = flow
        ) -> DensityEstimator:
            return DensityEstimator(flow, work=2).fit(x, sample_weight=w)

        same(f"{flow}, fitted twice", fit, fit)
        same(f"{flow}, weight 2 and none", fit, lambda fit=fit: fit(w=np.full(250, 2.0)))
        same(
            f"{flow}, weights times 1e-7", lambda fit=fit: fit(w=w), lambda fit=fit: fit(w=1e-7 * w)
        )
        same(
            f"{flow}, weights times 1e300",
            lambda fit=fit: fit(w=w),
            lambda fit=fit: fit(w=1e300 * w),
        )
        same(f"{flow}, rows twice", fit, lambda fit=fit: fit(np.r_[x, x]))
        same(
            f"{flow}, whole weights and repeats",
            lambda fit=fit: fit(w=whole),
            lambda fit=fit: fit(x.repeat(whole, axis=0)),
        )
        yield


list(variants())


@case("a time limit chooses work that repeats")
def _() -> Found:
    x = banana(np.random.default_rng(0), 300)
    first = DensityEstimator(time_limit=3).fit(x)
    again = DensityEstimator(work=first.work_).fit(x)
    return bool((first.score_samples(x) == again.score_samples(x)).all()), f"work {first.work_}"


# ---------------------------------------------------------------------------- wide, tiny, huge


def add_wide(n: int, columns: int, limit: float | None, kind: str) -> None:
    @case(f"{n} x {columns} {kind}, time_limit={limit}")
    def _() -> Found:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(n, columns))
        x[:, 1:] += 0.7 * x[:, :-1]
        if kind == "missing":
            x[rng.random(x.shape) < 0.1] = np.nan
        if kind == "flags":
            x = (x > 0).astype(int)
        missing = "model" if kind == "missing" else "error"
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            DensityEstimator(missing=missing, time_limit=limit).fit(x)
        spent, most = time.process_time() - start, 1.25 * (limit or 240)
        return spent < most, f"{spent:.0f} s of processor, expected {most:.0f} at most"


for shape in ((300, 600), (300, 1000), (200, 5000)):
    for sort in ("numbers", "missing", "flags"):
        add_wide(*shape, 30.0, sort)
add_wide(300, 1000, None, "numbers")
add_wide(200, 5000, None, "numbers")


def add_tiny(name: str, x: np.ndarray) -> None:
    @case(f"tiny: {name}")
    def _() -> Found:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = DensityEstimator().fit(x).score_samples(x)
        return bool(np.isfinite(scores).all()), f"mean score {scores.mean():.3g}, expected finite"


for rows in (2, 3, 9, 11):
    add_tiny(f"{rows} rows of 3", np.random.default_rng(0).normal(size=(rows, 3)))
add_tiny("5 rows of 20", np.random.default_rng(0).normal(size=(5, 20)))
add_tiny("a constant column", np.c_[np.ones(40), np.random.default_rng(0).normal(size=40)])
add_tiny("one row 300 times, another once", np.r_[np.zeros((300, 2)), [[1.5, 2.5]]])


@case("1e308 in a cell")
def _() -> Found:
    x = np.random.default_rng(0).normal(size=(100, 2))
    x[3, 1] = 1e308
    try:
        scores = DensityEstimator("gaussian").fit(x).score_samples(x)
    except ValueError as error:
        return "\n" not in str(error) and "row 4" in str(error), str(error)
    return not np.isnan(scores).any(), "scores"


@case("a weight of 1e308")
def _() -> Found:
    x = np.random.default_rng(0).normal(size=(100, 2))
    weight = np.ones(100)
    weight[:50] = 1e308
    found = DensityEstimator("gaussian").fit(x, sample_weight=weight).score(x[:50])
    return within(found, DensityEstimator("gaussian").fit(x[:50]).score(x[:50]), 1e-9)


if __name__ == "__main__":
    sys.exit(tell(each(asked(__doc__).of(CASES))))
