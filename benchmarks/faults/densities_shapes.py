"""Tries angles, ranges of samples, contexts, embedding networks, memory of mixtures and exports.

    python benchmarks/faults/densities_shapes.py

Prints each kind with what came and whether it held, and exits with 1 unless all did.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import resource
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from harness import asked, tell
from scipy.stats import vonmises
from torch import nn

import maskedflow as mf

TURN = 2 * np.pi
Found = tuple[str, bool, object]


def angles() -> Iterator[Found]:
    """Beside von Mises distributions by maximum likelihood, or beside the truth."""
    draws = np.random.default_rng(0)

    def gap(x: pd.DataFrame, fresh: pd.DataFrame, best: np.ndarray, names: str = "a") -> float:
        given = [column for column in x if column.startswith("c")]
        known = {name: {"kind": "angle", "period": TURN} for name in names}
        estimator = mf.DensityEstimator(schema=known, time_limit=60, missing="model")
        parts = [(one.drop(columns=given), one[given] if given else None) for one in (x, fresh)]
        estimator.fit(parts[0][0], context=parts[0][1])
        score: float = estimator.score(parts[1][0], context=parts[1][1])
        return score - float(best.mean())

    for kappa in (0.0, 2.0, 50.0, 500.0, 1e5):
        for n in (50, 100, 300, 1000, 20_000):
            x, fresh = (draws.vonmises(3.0, kappa, size) % TURN for size in (n, 4000))
            of_best, loc, _ = vonmises.fit(x, fscale=1)
            best = vonmises.logpdf(fresh, of_best, loc=loc)
            found = gap(pd.DataFrame({"a": x}), pd.DataFrame({"a": fresh}), best)
            yield f"angle, kappa {kappa:g}, {n} rows: nats above one von Mises", found > -0.1, found
    for n, most in ((300, 0.15), (3000, 0.05)):

        def two(size: int) -> pd.DataFrame:
            first = draws.uniform(0, TURN, size)
            return pd.DataFrame({"a": first, "b": (2 * first + draws.vonmises(0, 14, size)) % TURN})

        def by_category(size: int) -> pd.DataFrame:
            kind = draws.integers(0, 4, size)
            turn = (1.5 * kind + draws.vonmises(0, 50, size)) % TURN
            return pd.DataFrame({"a": turn, "kind": np.array(list("pqrs"))[kind]})

        def with_gaps(size: int) -> pd.DataFrame:
            there = draws.random(size) < 0.7
            return pd.DataFrame({"a": np.where(there, draws.vonmises(2, 50, size) % TURN, np.nan)})

        x, fresh = two(n), two(4000)
        best = vonmises.logpdf(fresh.b - 2 * fresh.a, 14) - np.log(TURN)
        found = gap(x, fresh, best, "ab")
        yield f"two angles, {n} rows: nats above the truth", found > -most, found
        x, fresh = by_category(n), by_category(4000)
        number = fresh.kind.map({kind: k for k, kind in enumerate("pqrs")})
        best = vonmises.logpdf(fresh.a - 1.5 * number, 50) - np.log(4)
        found = gap(x, fresh, best)
        yield f"an angle of a category, {n} rows: nats above the truth", found > -most, found
        x, fresh = with_gaps(n), with_gaps(4000)
        there = fresh.a.notna()
        best = np.where(there, np.log(0.7) + vonmises.logpdf(fresh.a - 2, 50), np.log(0.3))
        found = gap(x, fresh, best)
        yield f"an angle with gaps, {n} rows: nats above the truth", found > -most, found


def ranges() -> Iterator[Found]:
    """Samples beyond the data."""
    draws, n = np.random.default_rng(0), 1500
    x = pd.DataFrame(
        {
            "day": draws.integers(1, 32, n),
            "percent": draws.integers(0, 101, n),
            "share": draws.random(n),
            "age": np.clip(draws.normal(40, 18, n), 0, 95).astype(int),
            "normal": draws.normal(size=n),
            "income": np.where(draws.random(n) < 0.2, 0, draws.lognormal(size=n)),
            "when": pd.Timestamp("2020-01-01") + pd.to_timedelta(draws.integers(0, 300, n), "h"),
        }
    )
    for bounds, names in (("inferred", ("day", "percent", "share")), ("data", tuple(x))):
        drawn = mf.DensityEstimator(bounds=bounds, time_limit=15).fit(x).sample(20_000, 0)
        for name in names:
            beyond = ((drawn[name] < x[name].min()) | (drawn[name] > x[name].max())).mean()
            yield f"samples of {name} beyond the data, bounds={bounds!r}", beyond < 1e-3, beyond


def contexts() -> Iterator[Found]:
    """Numbers between, beside and at the edge of those of fit."""
    draws, n = np.random.default_rng(0), 2000
    kinds = {
        "integers": (draws.integers(1, 51, n) * 1.0, (12.5, 0.0, 51.0)),
        "doses": (draws.choice([5.0, 10, 20, 40, 80], n), (30.0, 4.0, 81.0)),
        "decimals": (np.round(draws.normal(170, 10, n), 1), (171.25, 120.0)),
        "waiting times": (draws.exponential(1.0, n), (0.0, -0.1)),
        "shares": (draws.beta(0.5, 0.5, n), (0.0, 1.0)),
        "seconds": (1.7e9 + draws.normal(size=n), (1.7e9 + 0.5,)),
    }
    for name, (c, at) in kinds.items():
        y = c - c.mean() + 0.1 * c.std() * draws.normal(size=n)
        estimator = mf.DensityEstimator("gaussian").fit(y[:, None], context=c[:, None])
        for value in at:
            mean = estimator.sample(1000, 0, context=[[value]]).mean() + c.mean()
            yield f"{name} at {value:g}", abs(mean - value) < 0.2 * c.std(), mean


def embeddings() -> Iterator[Found]:
    """Networks that the context goes through first."""
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    kinds: dict[str, tuple[nn.Module, torch.Tensor]] = {
        "batch norm": (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(601, 3)),
        "series": (nn.Sequential(nn.Flatten(), nn.Linear(20, 4)), torch.randn(301, 1, 20)),
        "images": (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *pool),
            torch.randn(301, 3, 8, 8),
        ),
        "tokens": (nn.Sequential(nn.Embedding(9, 2), nn.Flatten()), torch.randint(9, (301, 2))),
    }
    for name, (network, c) in kinds.items():
        maf = mf.flows.MAF(2, 4)
        flow = mf.flows.Flow(maf.transform, maf.base, network)
        x = torch.randn(len(c), 2)
        train, validation = mf.data.Split(x, c), mf.data.Split(x[:50], c[:50])
        config = mf.training.TrainConfig(epochs=1, batch_size=100)
        try:
            mf.training.fit(flow, train, validation, config)
            yield f"an embedding of {name}", True, "trained"
        except (ValueError, RuntimeError) as error:
            yield f"an embedding of {name}", False, error


def memory() -> Iterator[Found]:
    """What draws of a mixture take beside its own numbers."""
    eye = torch.eye(64).expand(128, -1, -1).clone()
    mixture = mf.distributions.MixtureOfGaussians(torch.zeros(128), torch.zeros(128, 64), None, eye)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mixture.rsample((5000,))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    yield "MB that 5,000 draws of 128 Gaussians in 64 dimensions take", grown < 100, grown


class Score(nn.Module):
    """The log-density of a flow."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.flow(c).log_prob(x)


def exports() -> Iterator[Found]:
    """Log-densities with any number of rows."""
    kinds = [
        "MAF",
        "MADE",
        "IAF",
        "NICE",
        "RealNVP",
        "NSF",
        "NCSF",
        "NAF",
        "UNAF",
        "SOSPF",
        "BPF",
        "GF",
        "GMM",
    ]
    for kind in kinds:
        score = Score(getattr(mf.flows, kind)(3, context=2).eval())
        few, many = ((torch.rand(n, 3), torch.rand(n, 2)) for n in (6, 11))
        rows = torch.export.Dim("rows", min=2)
        try:
            exported = torch.export.export(score, few, dynamic_shapes=({0: rows}, {0: rows}))
            with torch.no_grad():
                apart = float((exported.module()(*many) - score(*many)).abs().max())
            yield f"export of {kind}", apart < 1e-5, apart
        except Exception as error:  # whatever torch says
            yield f"export of {kind}", False, str(error).strip().splitlines()[0][:80]


def tried() -> Iterator[Found]:
    """All of them."""
    torch.manual_seed(0)
    kinds = (memory, contexts, embeddings, exports, ranges, angles)
    for kind in asked(__doc__).of({one.__name__: one for one in kinds}).values():
        for what, holds, came in kind():
            yield what, holds, f"{came:.4g}" if isinstance(came, float) else came


if __name__ == "__main__":
    sys.exit(tell(tried()))
