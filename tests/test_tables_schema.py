"""What is inferred of made tables, what a user declares, and the file of both."""

from __future__ import annotations

import datetime as dt
import math
import pickle
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from maskedflow.tables import Column, Schema, read_document, to_rows

N = 2000
NORMAL = np.random.default_rng(1).normal(size=N)
DAY = np.datetime64("2020-01-01")
MOMENT = np.datetime64("2020-01-01T00:00:00", "us")


def column(cells: Any, **given: Any) -> Column:
    table = pa.table({"x": cells})
    return Schema.infer(table, "model", {"x": given} if given else None).columns[0]


def zero_in(share: float, cells: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(2).random(N) < share, 0, cells)


def drawn(cells: Any, rng: np.random.Generator) -> Any:
    """The cells, of which some cases tell only how they are drawn."""
    return cells(rng) if callable(cells) else cells


# ---------------------------------------------------------------- inference


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (NORMAL, "continuous"),
        (NORMAL.astype(np.float32), "continuous"),
        (np.abs(NORMAL), "continuous"),  # a bound, but nothing is gained by a logarithm
        (10 + NORMAL, "continuous"),
        (np.exp(NORMAL), "positive (above 0)"),
        (np.exp(NORMAL) - 0.1, "continuous"),
        (np.exp(0.2 * NORMAL), "continuous"),
        (lambda rng: rng.exponential(size=N), "positive (above 0)"),
        (zero_in(0.3, np.exp(NORMAL)), "positive (above 0), atom at 0"),
        (np.minimum(NORMAL, 1), "continuous, atom at 1"),
        (
            lambda rng: np.where(NORMAL > 1, -999, rng.exponential(size=N)),
            "positive (above 0), atom at -999",
        ),
        (zero_in(0.01, NORMAL), "continuous"),
        (lambda rng: rng.random(N), "bounded (0 to 1)"),
        (lambda rng: rng.beta(0.5, 0.5, N), "bounded (0 to 1)"),
        (lambda rng: 100 * rng.beta(0.5, 0.5, N), "bounded (0 to 100)"),
        (lambda rng: rng.beta(5, 5, N), "continuous"),
        (lambda rng: rng.beta(2, 20, N), "continuous"),
        (lambda rng: rng.random(N) * 2, "continuous"),
        (lambda rng: np.clip(1.2 * rng.random(N), 0, 1), "bounded (0 to 1), atom at 1"),
        (lambda rng: rng.integers(0, 101, N), "bounded (0 to 100), steps of 1"),
        (lambda rng: rng.integers(17, 91, N), "discretised (17 to 90), steps of 1"),
        (lambda rng: rng.integers(17, 91, N).astype(float), "discretised (17 to 90), steps of 1"),
        (lambda rng: rng.integers(-(10**9), 10**9, N), "discretised, steps of 1"),
        (lambda rng: 25 * rng.integers(-200, 200, N), "discretised, steps of 25, seldom 1"),
        (np.round(10 * NORMAL, 1), "discretised, steps of 0.1"),
        (np.round(10 * NORMAL, 1).astype(np.float32), "discretised, steps of 0.1"),
        (np.round(20 * NORMAL) / 4, "discretised, steps of 0.25, seldom 0.01"),
        (np.round(100 * NORMAL, 2), "continuous"),  # hardly two rows share a value
        (
            lambda rng: np.where(NORMAL > 0, 40, rng.integers(10, 80, N)),
            "discretised (10 to 79), steps of 1, atom at 40",
        ),
        (
            [Decimal(k) / 100 for k in [-2] * 10 + [0] * 9 + [3] * 10],
            "discretised, steps of 0.01, atoms at -0.02 and 0.03",
        ),  # one value that is ordinary has no range
        # 9 is frequent, but no more than those beside.
        (lambda rng: rng.poisson(9, N), "discretised, steps of 1"),
        (lambda rng: rng.integers(0, 5, N), "ordinal, 5 levels"),
        (lambda rng: rng.integers(0, 2, N).astype(float), "ordinal, 2 levels"),
        (lambda rng: rng.choice([0.1, math.pi], N), "ordinal, 2 levels"),
        (lambda rng: rng.choice([0.1, 2, math.pi], N), "ordinal, 3 levels"),
        (lambda rng: rng.choice([0.1, 0.2, 0.3], N), "discretised (0.1 to 0.3), steps of 0.1"),
        ([0] * 999 + [1], "ordinal, 2 levels"),
        (["b", "a"] * 9, "categorical, 2 levels"),
        (["1", "2"] * 9, "categorical, 2 levels"),
        (pa.array(["b", "a"] * 9).dictionary_encode(), "categorical, 2 levels"),
        ([True, False], "boolean"),
        (DAY + np.rint(90 * NORMAL).astype(np.int64), "date in days, steps of 1"),
        (
            MOMENT + np.rint(90 * NORMAL).astype(np.int64) * 86_400_000_000,
            "date in seconds, steps of 86,400",
        ),
        (
            MOMENT + np.rint(90 * NORMAL).astype(np.int64) * 900_000_000,
            "date in seconds, steps of 900",
        ),
        (MOMENT + (1e9 * NORMAL).astype(np.int64), "date in seconds, steps of 1e-06"),
        ([dt.time(1, 30), dt.time(2)], "date in seconds, steps of 1,800"),
        ([7, 7], "constant 7"),
        (["u", "u"], "constant 'u'"),
        ([False, False], "constant False"),
        (pa.nulls(3), "empty"),
        ([math.nan, None], "empty"),
        (["u", None], "categorical, 1 levels, may be missing"),
        ([2.5, math.nan], "ordinal, 1 levels, may be missing"),
        (pa.array(NORMAL, mask=NORMAL > 1), "continuous, may be missing"),
        (lambda rng: rng.uniform(0, 360, N), "continuous"),  # an angle is never guessed
    ],
)
def test_a_column_is_taken_for_what_it_is(
    cells: Any, wanted: str, rng: np.random.Generator
) -> None:
    assert column(drawn(cells, rng)).summary == wanted


def test_the_reason_is_told() -> None:
    table = pa.table({"income": np.exp(NORMAL), "n": pa.array([1, None] * (N // 2))})
    first, second = str(Schema.infer(table, "model")).splitlines()
    assert first.startswith("income  positive (above 0)")
    assert "all above 0 and skewed (" in first
    assert second.endswith("one value; 50% missing")


def test_levels_are_sorted_unless_they_have_an_order() -> None:
    indices = pa.array([0, 1, 2], pa.int8())
    for ordered, levels in ((False, ("high", "low", "mid")), (True, ("low", "mid", "high"))):
        cells = pa.DictionaryArray.from_arrays(indices, ["low", "mid", "high"], ordered=ordered)
        assert column(cells).levels == levels
    assert column(cells).kind == "ordinal"


def test_categories_that_no_row_has_are_no_levels() -> None:
    cells = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1]), ["a", "b", "c"])
    assert column(cells).levels == ("a", "b")


def test_duplicates_are_named(rng: np.random.Generator) -> None:
    a = rng.integers(0, 90, N)
    table = pa.table(
        {"a": a, "b": a.astype(float), "c": NORMAL, "d": a, "e": a + 1.0, "f": a.astype(str)}
    )
    columns = Schema.infer(table).columns
    assert [column.of for column in columns] == [None, "a", None, "a", None, None]
    declared = Schema.infer(table, overrides={"b": {"kind": "continuous"}}).columns
    assert [column.of for column in declared] == [None, None, None, "a", None, None]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([f"name {i % 90}" for i in range(100)], "90 categories in 100 rows are too many"),
        ([f"{i % 1001}" for i in range(9009)], "'x': 1,001 categories in 9,009 rows are too many"),
        ([[1], [2]], "found type list<item: int64>; leave the column out"),
        ([b"1", b"2"], "found type binary"),
        ([1.0, math.inf], "column 'x', row 2: expected a finite number, found inf"),
        ([1, 2**60], r"column 'x', row 2: expected an integer below 2\^53"),
    ],
)
def test_what_has_no_density_is_refused(cells: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        column(cells)
    assert "\n" not in str(caught.value)


def test_missing_values_are_refused_dropped_or_modelled() -> None:
    table = pa.table({"a": [1.5, None, 2.5, 7.25], "b": ["u", "v", None, "v"]})
    with pytest.raises(ValueError, match=r"'a', row 2: missing \(1 of 4 values are\); fill it in"):
        Schema.infer(table)
    dropped = Schema.infer(table, "drop")
    assert [column.missing for column in dropped.columns] == [False, False]
    assert dropped.columns[1].levels == ("u", "v")
    modelled = Schema.infer(table, "model")
    assert [column.missing for column in modelled.columns] == [True, True]
    with pytest.raises(ValueError, match="missing: expected 'error', 'drop' or 'model', got 'a'"):
        Schema.infer(table, "a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="found none without gaps"):
        Schema.infer(table.slice(1, 2), "drop")


# ---------------------------------------------------------------- what is declared


@pytest.mark.parametrize(
    ("cells", "given", "wanted"),
    [
        (np.abs(NORMAL), {"kind": "positive"}, "positive (above 0)"),
        (np.abs(NORMAL), {"low": -1}, "positive (above -1)"),
        (NORMAL, {"high": 9}, "bounded (below 9)"),
        (lambda rng: rng.beta(5, 5, N), {"kind": "bounded"}, "bounded (0 to 1)"),
        (zero_in(0.01, np.exp(NORMAL)), {"kind": "positive"}, "positive (above 0), atom at 0"),
        (zero_in(0.01, np.exp(NORMAL)), {"kind": "continuous"}, "continuous"),
        (np.exp(NORMAL), {"atoms": [1.0]}, "positive (above 0), atom at 1"),
        (lambda rng: rng.integers(0, 5, N), {"kind": "integer"}, "discretised, steps of 1"),
        (lambda rng: rng.integers(0, 5, N), {"kind": "continuous"}, "continuous"),
        (lambda rng: rng.integers(0, 5, N), {"kind": "categorical"}, "categorical, 5 levels"),
        (lambda rng: rng.integers(0, 5, N), {"levels": [0, 1, 2, 3, 4, 5]}, "ordinal, 6 levels"),
        (lambda rng: rng.integers(0, 2, N), {"kind": "boolean"}, "boolean"),
        (["a", "b"], {"levels": ["b", "a", "c"]}, "categorical, 3 levels"),
        (np.round(100 * NORMAL, 2), {"kind": "discretised"}, "discretised, steps of 0.01"),
        (np.round(NORMAL) / 2, {"step": 0.5}, "discretised, steps of 0.5"),
        (NORMAL, {"period": 2 * math.pi}, "angle of period 6.28319"),
        (NORMAL, {"missing": True}, "continuous, may be missing"),
        (NORMAL, {"note": "as told"}, "continuous"),
    ],
)
def test_what_is_declared_holds(
    cells: Any, given: dict[str, Any], wanted: str, rng: np.random.Generator
) -> None:
    assert column(drawn(cells, rng), **given).summary == wanted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "angel"}, "column 'x': kind: expected one of .*continuous, .* got 'angel'"),
        ({"kind": "angle"}, "column 'x': an angle needs its period"),
        ({"kind": "positive"}, r"'x', row \d+: expected positive \(above 0\), found -"),
        ({"kind": "bounded"}, "column 'x': a bounded column needs a bound"),
        ({"kind": "discretised"}, "column 'x': found no grid that its numbers are on"),
        ({"kind": "integer"}, "'x', row 1: expected discretised, steps of 1, found 0.12573"),
        ({"kind": "date"}, "column 'x': kind 'date' needs dates or times, found type double"),
        ({"kind": "boolean"}, "'x', row 1: expected boolean, found 0.12573"),
        ({"kind": "categorical"}, "2,000 categories in 2,000 rows are too many"),
        ({"kind": "constant"}, "expected the same in all rows, found 2,000 values"),
        ({"kind": "duplicate"}, "needs the name of the column that it repeats"),
        (
            {"kind": "duplicate", "of": "y"},
            "expected a column that is no duplicate, and not left out, got 'y'",
        ),
        ({"low": 1, "high": 0}, "column 'x': expected low < high, got 1 and 0"),
        ({"low": "0"}, "column 'x': low: expected a number, got '0'"),
        ({"high": 1}, r"'x', row \d+: expected bounded \(below 1\), found [12]"),
        ({"levels": ["a", 1]}, "'x': levels: expected all strings or all numbers"),
        ({"atoms": 0}, "column 'x': atoms: expected a list, got 0"),
        ({"missing": "yes"}, "column 'x': missing: expected true or false, got 'yes'"),
        ({"lower": 0}, "column 'x': expected kind, type, low, .* found 'lower'"),
        ({"type": "number"}, "'x': type: expected the name of an Arrow type"),
        ({"period": math.inf}, "expected finite numbers"),
    ],
)
def test_declarations_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    cells = np.random.default_rng(0).normal(size=N)
    with pytest.raises(ValueError, match=message) as caught:
        column(cells, **given)
    assert "\n" not in str(caught.value)


def test_a_declared_column_has_to_be_there() -> None:
    with pytest.raises(ValueError, match="schema: the table has no column 'y'; it has x"):
        Schema.infer(pa.table({"x": [1]}), overrides={"y": {}})


# ---------------------------------------------------------------- files


def test_a_file_says_what_its_author_knows(rng: np.random.Generator) -> None:
    text = """
        missing = "drop"
        [columns.income]
        kind = "positive"
        [columns.wind]
        kind = "angle"
        period = 360
    """
    missing, columns = read_document(text)
    table = pa.table({"income": np.abs(NORMAL), "wind": 90 + NORMAL, "age": rng.integers(0, 90, N)})
    assert missing is not None
    schema = Schema.infer(table, missing, columns)
    assert [c.kind for c in schema.columns] == ["positive", "angle", "discretised"]
    assert schema.missing == "drop"


def test_a_whole_file_is_a_schema_and_overrides_everything(rng: np.random.Generator) -> None:
    table = pa.table(
        {
            "a b": np.exp(NORMAL),
            "c.d": pa.array(["u", "v"] * (N // 2)).dictionary_encode(),
            "e": MOMENT + rng.integers(0, 900, N),
            "f": [True] * N,
            "g": pa.array(np.round(NORMAL, 2)).cast(pa.decimal128(9, 2)),
            "h": np.exp(NORMAL),
            "i": pa.nulls(N),
            "j": rng.integers(0, 5, N),
        }
    )
    schema = Schema.infer(table, "model")
    text = schema.to_toml()
    assert Schema.from_toml(text) == schema
    assert pickle.loads(pickle.dumps(schema)) == schema
    missing, columns = read_document(text)
    assert missing == "model"
    few = table.slice(0, 3)  # would be taken for something else
    assert Schema.infer(few, "model") != schema
    assert Schema.infer(few, "model", columns) == schema


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[column.a]", "schema: expected 'missing' and 'columns', found 'column'"),
        ("missing = 'no'", "missing: expected 'error', 'drop' or 'model', got 'no'"),
        ("columns = 1", "columns: expected a section for each column, found 1"),
        ("[columns]\na = 1", "column 'a': expected a section of settings, found 1"),
        ("[columns.a]\nkind = 'angle'\nperiod = 1", "column 'a': expected its type; or infer it"),
        ("missing = 'drop'", "columns: expected at least one"),
        ("[", "at end of document"),
    ],
)
def test_a_file_that_is_no_schema_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schema.from_toml(text)


def test_the_layout_says_what_the_density_needs(rng: np.random.Generator) -> None:
    cells = pa.array(zero_in(0.2, rng.exponential(size=N)), mask=NORMAL < -1)
    table = pa.table(
        {
            "word": ["u", "v"] * (N // 2),
            "spiked": cells,
            "age": rng.integers(17, 91, N),
            "wind": rng.uniform(0, 360, N),
            "gust": pa.array(rng.uniform(0, 24, N), mask=NORMAL > 0),
        }
    )
    schema = Schema.infer(table, "model", {"wind": {"period": 360}, "gust": {"period": 24}})
    layout = schema.layout
    assert layout.levels == schema.code_levels == (2, 3, 2)
    assert layout.value_state == (1, None)
    assert layout.angle_state == (None, 2)
    assert layout.steps == schema.steps == (0, 1)
    assert layout.lows == (0, 0)
    assert layout.highs == (None, 74)
    assert layout.log_units == pytest.approx(math.log(2 * math.pi / 360))
    assert layout.code_units[2] == pytest.approx((math.log(2 * math.pi / 24), 0))


def test_on_a_grid_atoms_have_a_density_too() -> None:
    """The mass of a cell over its width, like the numbers beside them, so that shares add up."""
    cells = np.round(np.where(NORMAL > 0, 0.5, 50 + NORMAL), 1)
    schema = Schema.infer(pa.table({"x": cells}))
    assert schema.columns[0].summary == "discretised (from 0), steps of 0.1, atom at 0.5"
    units = schema.layout.units(to_rows(schema, pa.table({"x": [0.5, 49.9]})).codes)
    assert units.tolist() == pytest.approx([math.log(10), 0])
