"""Whether rows that a density was made with are known again, and copies dealt to one side.

Each kind of table is fitted from each container, and asked about in all others, in another order
and precision; tables whose rows are there several times are dealt in every way. Run by hand:

    python benchmarks/faults/reports.py
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from harness import asked, tell

import maskedflow as mf
from maskedflow.data import open_mixed, open_streamed, open_table
from maskedflow.tables import to_arrow

FOLDER = Path(tempfile.mkdtemp())
N = 600


# ------------------------------------------------------------------------------ knowing rows again


def _single(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(np.float64)


def _numbers(rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(_single(rng.normal(size=(N, 3))), columns=list("abc"))


def _one(rng: np.random.Generator) -> pd.DataFrame:
    return _numbers(rng)[["a"]]


def _large(rng: np.random.Generator) -> pd.DataFrame:
    return _numbers(rng) * [1.0, 2.0**20, 2.0**-20]


def _decimals(rng: np.random.Generator) -> pd.DataFrame:
    return _numbers(rng).round(3)


def _mixed(rng: np.random.Generator) -> pd.DataFrame:
    frame = _numbers(rng)
    frame["town"] = rng.choice(["Bonn", "Oslo", "Pisa"], N)
    frame["visits"] = rng.poisson(4, N)
    frame["member"] = rng.random(N) < 0.5
    return frame


def _gaps(rng: np.random.Generator) -> pd.DataFrame:
    frame = _mixed(rng)
    frame.loc[rng.random(N) < 0.2, "a"] = np.nan
    frame.loc[rng.random(N) < 0.1, "town"] = None
    return frame


def _days(rng: np.random.Generator) -> pd.DataFrame:
    frame = _numbers(rng)
    frame["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 400, N), unit="D")
    return frame


def _rain(rng: np.random.Generator) -> pd.DataFrame:
    frame = _numbers(rng)
    frame["rain"] = np.where(rng.random(N) < 0.7, 0.0, _single(rng.gamma(2.0, size=N)))
    return frame[["a", "rain"]]


KINDS: dict[str, Callable[[np.random.Generator], pd.DataFrame]] = {
    "numbers": _numbers,
    "one column": _one,
    "large and small": _large,
    "decimals": _decimals,
    "mixed": _mixed,
    "gaps": _gaps,
    "days": _days,
    "rain": _rain,
}


def _csv(frame: pd.DataFrame) -> pa.Table:
    frame.to_csv(FOLDER / "x.csv", index=False)
    table = pacsv.read_csv(
        FOLDER / "x.csv", convert_options=pacsv.ConvertOptions(strings_can_be_null=True)
    )
    return table


def _parquet(frame: pd.DataFrame) -> pa.Table:
    frame.to_parquet(FOLDER / "x.parquet", index=False)
    return pq.read_table(FOLDER / "x.parquet")


def _float32(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype(dict.fromkeys(frame.select_dtypes("float64"), "float32"))


CONTAINERS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "float32": _float32,
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "csv": _csv,
    "parquet": _parquet,
}


def _known(estimator: mf.DensityEstimator, frame: Any, context: list[str]) -> tuple[int, bool]:
    table = to_arrow(frame)
    given = table.select(context) if context else None
    seen = estimator.fitted_.seen(table.drop_columns(context), given)
    assert seen is not None
    return seen.trained, seen.new


def recognised() -> list[tuple[str, bool]]:
    """Half of a table is fitted; of the whole table that half, and of fresh rows none, is known."""
    found = []
    for kind, context in itertools.product(KINDS, ([], ["a"])):
        frame = KINDS[kind](np.random.default_rng(0))
        fresh = KINDS[kind](np.random.default_rng(1))
        if frame.shape[1] == len(context):
            continue
        if context and frame[context].isna().any(axis=None):
            context = ["b"]
        for name in ("pandas", "csv", "float32"):
            some = CONTAINERS[name](frame[: N // 2])
            some = some if isinstance(some, pd.DataFrame) else some.to_pandas()
            missing = "model" if kind == "gaps" else "error"
            estimator = mf.DensityEstimator("gaussian", missing=missing, time_limit=0.5)
            given = some[context] if context else None
            estimator.fit(some.drop(columns=context), context=given)
            file = FOLDER / "e.safetensors"
            estimator.save(file)
            estimator = mf.DensityEstimator.load(file)
            for other, turn in CONTAINERS.items():
                known, _ = _known(estimator, turn(frame[::-1]), context)
                # Of one column on a coarse grid, or of no rain, a row is there again by chance.
                least = 0.25 if kind == "rain" else 1.0
                held = least * N / 2 <= known <= N / 2
                given_name = f" given {context[0]}" if context else ""
                found.append((f"{kind}{given_name}: {name}, asked as {other}", held))
            _, new = _known(estimator, fresh, context)
            found.append((f"{kind}{given_name}: {name}, fresh rows", new))
    return found


# ------------------------------------------------------------------------------------------ dealing


def _chain(rng: np.random.Generator, width: int, rate: float) -> np.ndarray:
    rows = [rng.normal(size=width)]
    for _ in range(1999):
        rows.append(rng.normal(size=width) if rng.random() < rate else rows[-1])
    return np.array(rows)


def _bootstrap(rng: np.random.Generator, width: int) -> np.ndarray:
    return rng.normal(size=(2000, width))[rng.integers(2000, size=2000)]


def _weighted(rng: np.random.Generator, width: int) -> np.ndarray:
    weight = rng.gamma(0.5, size=2000)
    return rng.normal(size=(2000, width))[rng.choice(2000, 2000, p=weight / weight.sum())]


REPEATS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "chain, a quarter accepted": lambda rng, width: _chain(rng, width, 0.25),
    "chain, a tenth accepted": lambda rng, width: _chain(rng, width, 0.1),
    "bootstrap": _bootstrap,
    "weighted": _weighted,
    "five copies": lambda rng, width: rng.normal(size=(400, width)).repeat(5, axis=0),
    "two copies, three decimals": lambda rng, width: np.round(
        rng.normal(size=(1000, width)), 3
    ).repeat(2, axis=0),
    "whole numbers, twice": lambda rng, width: (
        rng.integers(10**5, size=(1000, width)).repeat(2, axis=0).astype(float)
    ),
    "a third is one row": lambda rng, width: np.vstack(
        [rng.normal(size=(1400, width)), np.full((600, width), rng.normal(size=width))]
    ),
}


def _rows(*parts: Any) -> list[set[bytes]]:
    return [{(row + 0.0).tobytes() for row in np.asarray(part, np.float32)} for part in parts]


def dealt() -> list[tuple[str, bool]]:
    """No copy of a row is on two sides, and sides have about their sizes."""
    found = []
    for (kind, make), width in itertools.product(REPEATS.items(), (2, 3, 8)):
        rows = make(np.random.default_rng(width), width)
        names = [f"c{i}" for i in range(width)]
        for suffix in ("csv", "parquet"):
            path = FOLDER / f"t.{suffix}"
            frame = pd.DataFrame(rows, columns=names)
            if suffix == "csv":
                frame.to_csv(path, index=False)
            else:
                frame.to_parquet(path, index=False)
            for context in ([], names[:1]):
                one, table = open_table(path, context=context), open_mixed(path, context=context)
                stream = open_streamed(path, context=context)
                tables = [part.table.select(names) for part in (table.train, table.test)]
                sides = {
                    "table": [one.train, one.validation, one.test],
                    "stream": [stream.train, stream.validation, stream.test],
                }
                parts = {
                    name: _rows(
                        *(
                            part.x if part.context is None else np.hstack([part.x, part.context])
                            for part in some
                        )
                    )
                    for name, some in sides.items()
                }
                parts["mixed"] = _rows(*(np.stack(part.columns, axis=1) for part in tables))
                for name, some in parts.items():
                    held = all(some) and sum(map(len, some)) == len(set().union(*some))
                    title = f"{kind}, {width} columns, {suffix}, {name}"
                    found.append((title + (", context" if context else ""), held))
                near = 0.05 * len(rows) <= len(one.test) <= 0.15 * len(rows)
                found.append((f"{kind}, {width} columns, {suffix}: sizes", near))
    return found


if __name__ == "__main__":
    parts = asked(__doc__).of({"recognised": recognised, "dealt": dealt})
    sys.exit(tell(one for part in parts.values() for one in part()))
