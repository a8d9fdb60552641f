"""What numbers may be: between the steps of a grid, up to bounds, or only names of rows."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from commands import call, run
from maskedflow import DensityEstimator
from maskedflow.columns import to_rows, to_table
from maskedflow.tables import Column, FittedTable, Schema

N = 2000
RNG = np.random.default_rng(3)
NORMAL = RNG.normal(size=N)
AMOUNTS = 100 * np.rint(300 + 80 * NORMAL)
DAY = np.datetime64("2020-01-01")


def schema_of(cells: Any, **given: Any) -> Schema:
    return Schema.infer(pa.table({"x": cells}), "model", {"x": given} if given else None)


def column(cells: Any, **given: Any) -> Column:
    return schema_of(cells, **given).columns[0]


def impossible(one: Column, cells: Any) -> list[bool]:
    found: list[bool] = one.encode(pa.table({"x": cells})).impossible.tolist()
    return found


# ---------------------------------------------------------------- between steps


@pytest.mark.parametrize(
    ("cells", "step", "unit"),
    [
        (AMOUNTS, 100, 1),
        (AMOUNTS.astype(np.int64), 100, 1),
        (AMOUNTS / 400, 0.25, 0.01),
        (AMOUNTS / 1000, 0.1, 0.1),
        ((AMOUNTS / 1000).astype(np.float32), 0.1, 0.1),
        (pa.array(AMOUNTS / 1000).cast(pa.decimal128(9, 3)), 0.1, 0.001),
        (np.round(AMOUNTS / 100) * 1.15078, 1.15078, 1.15078),  # in other units: no decimals
    ],
)
def test_an_inferred_grid_is_no_law(cells: Any, step: float, unit: float) -> None:
    one = column(cells)
    assert (one.step, one.unit) == (step, unit)
    assert Schema.from_toml(schema_of(cells).to_toml()).columns[0] == one
    declared = column(cells, step=one.step, origin=one.origin)
    assert declared.unit == 0


def test_numbers_between_steps_are_possible_unless_the_step_is_declared() -> None:
    between, inferred = [50_000.0, 50_050.0, 50_050.5], column(AMOUNTS)
    assert impossible(inferred, between) == [False, False, False]
    assert impossible(column(AMOUNTS, step=100), between) == [False, True, True]
    assert impossible(column(AMOUNTS, step=100, unit=1), between) == [False, False, False]
    whole = column(AMOUNTS.astype(np.int64))
    assert impossible(whole, between) == [False, False, True]  # of which the type knows none
    schema = Schema((inferred,))
    rows = to_rows(schema, pa.table({"x": between}))
    assert to_table(schema, rows)["x"].to_pylist() == [50_000, 50_050, 50_050]


def test_a_number_beside_an_atom_counts_as_the_atom() -> None:
    cells = np.where(NORMAL > 1, 40.0, np.rint(20 + 5 * NORMAL))
    one = column(cells)
    assert (one.unit, one.atoms) == (1, (40,))
    assert one.encode(pa.table({"x": [40.0, 40.3, 39.6, 39.4]})).code.tolist() == [1, 1, 1, 0]


def test_all_numbers_of_the_finest_grid_share_the_probability() -> None:
    table = pa.table({"x": 10 * np.rint(30 + 8 * NORMAL[:300])})
    fitted = FittedTable.fit(table, flow="gaussian")
    assert fitted.schema.columns[0].summary == "discretised, steps of 10, seldom 1"
    assert fitted.schema.layout.steps == (1.0,)
    log_prob = fitted.log_prob(pa.table({"x": np.arange(-1000.0, 2000.0)}))
    # P(x) / step, so that what is on the steps is comparable with a column of steps alone.
    assert float(log_prob.exp().sum()) * 10 == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step": 1.0, "unit": 2.0}, "unit: expected a whole part of the step 1, got 2"),
        ({"step": 1.0, "unit": 0.3}, "unit: expected a whole part of the step 1, got 0.3"),
        ({"step": 1.0, "unit": -1.0}, "unit: expected a whole part"),
        ({"unit": 1.0}, "unit: expected a whole part of the step 0, got 1"),
    ],
)
def test_a_unit_is_a_part_of_the_step(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Column("x", "continuous", pa.float64(), **given)  # type: ignore[arg-type]


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        (RNG.poisson(3, N), 0, None),
        (RNG.poisson(3, N) + 1, 0, None),
        (RNG.geometric(0.05, N) - 1, 0, None),
        (np.where(RNG.random(N) < 0.6, 0, RNG.geometric(0.05, N)), 0, None),
        (RNG.poisson(40, N), 0, None),  # of which the least are far from it
        (RNG.poisson(9, N), None, None),
        (np.rint(1000 + 100 * NORMAL), 0, None),
        (np.rint(1000 + 200 * NORMAL) - 900, None, None),
        (np.rint(12 + 4 * NORMAL).clip(-1), None, None),
        (np.rint(12 + 4 * NORMAL[:100]).clip(0), None, None),  # degrees, of which few are cold
        (RNG.poisson(3, N) - 1, None, None),
        (np.round(np.clip(7 + 1.5 * NORMAL, 0, 10), 1), 0, 10),
        (np.round(np.clip(7 + 1.5 * NORMAL, 0, 10.1), 1), None, None),
        (np.round(np.clip(3.5 + NORMAL, 1, 5), 2), 1, 5),
        (np.clip(7 + 1.5 * NORMAL, None, 10), None, 10),
        (np.rint(np.clip(80 + 20 * NORMAL, 0, 100)), 0, 100),
        (np.where(RNG.random(N) < 0.02, 0, 5 + np.abs(NORMAL)), 0, None),
        (np.where(RNG.random(N) < 0.001, 0, 5 + np.abs(NORMAL)), None, None),
        (10 + NORMAL, None, None),
    ],
)
def test_bounds_are_where_numbers_end(cells: Any, low: float | None, high: float | None) -> None:
    one = column(cells)
    assert (one.low, one.high) == (low, high)
    assert any(why in one.note for why in ("none", "all above 0")) == (low != high)


def test_fewer_than_fifty_rows_tell_no_bound() -> None:
    assert column(RNG.poisson(3, 40)).low is None


@pytest.mark.parametrize("unit", ["D", "s", "us"])
def test_dates_that_do_not_decay_end_soon_after_the_last(unit: str) -> None:
    many = (DAY + RNG.integers(0, 100, N)).astype(f"M8[{unit}]")
    few = (DAY + RNG.integers(0, 5000, N)).astype(f"M8[{unit}]")
    decaying = (DAY + RNG.geometric(0.01, N)).astype(f"M8[{unit}]")
    assert "from 2020-01-01 to 2020-04-09" in column(many).summary
    high = np.datetime64(column(few).as_written("high"), "D")
    assert few.max() < high < few.max().astype("M8[D]") + 40
    assert "to" not in column(decaying).summary.split()
    assert column(decaying, kind="date").low is None


def test_draws_stay_where_numbers_can_be() -> None:
    n = 500
    table = pa.table(
        {
            "seniority": np.rint(np.abs(6 * NORMAL[:n])).astype(np.int64),
            "sick": RNG.poisson(2, n),
            "satisfaction": np.round(np.clip(7.5 + 1.5 * NORMAL[n : 2 * n], 0, 10), 1),
            "hired": DAY + RNG.integers(0, 300, n),
        }
    )
    fitted = FittedTable.fit(table, flow="gaussian")
    drawn = fitted.sample(20_000, seed=0).to_pandas()
    numbers = drawn.drop(columns="hired")
    assert (numbers.min() >= 0).all()
    most = table.drop_columns("hired").to_pandas().max()
    assert (numbers.max() <= 2 * most).all()  # by logs, seniority and sickness went far beyond
    assert numbers["satisfaction"].max() == 10
    assert drawn["hired"].max() <= dt.date(2020, 10, 31)
    assert fitted.log_prob(table).isfinite().all()


# ---------------------------------------------------------------- bounds of dates


DATES = DAY + np.rint(365 + 90 * NORMAL).astype(np.int64)
MOMENTS = DATES.astype("M8[us]") + RNG.integers(0, 86_400, N) * 1_000_000


@pytest.mark.parametrize(
    ("cells", "high", "inside", "outside"),
    [
        (DATES, dt.date(2023, 1, 1), dt.date(2023, 1, 1), dt.date(2023, 1, 2)),
        (DATES, "2023-01-01", dt.date(2023, 1, 1), dt.date(2023, 1, 2)),
        (
            MOMENTS,
            dt.date(2023, 1, 1),  # all of it
            dt.datetime(2023, 1, 1, 23, 59, 59),
            dt.datetime(2023, 1, 2),
        ),
        (
            MOMENTS,
            dt.datetime(2023, 1, 1, 12),
            dt.datetime(2023, 1, 1, 12),
            dt.datetime(2023, 1, 1, 12, 0, 1),
        ),
        (
            pa.array(MOMENTS).cast(pa.timestamp("ns", "UTC")),
            "2023-01-01T12:00:00+00:00",
            dt.datetime(2023, 1, 1, 12, tzinfo=dt.UTC),
            dt.datetime(2023, 1, 1, 12, 0, 1, tzinfo=dt.UTC),
        ),
        (
            pa.array(RNG.integers(0, 70_000, N).astype(np.int32), pa.time32("s")),
            dt.time(20),
            dt.time(20),
            dt.time(20, 0, 1),
        ),
    ],
)
def test_dates_may_be_bounds(cells: Any, high: Any, inside: Any, outside: Any) -> None:
    schema = schema_of(cells, high=high)
    one = schema.columns[0]
    assert one.kind == "date"
    assert impossible(one, pa.array([inside, outside]).cast(one.type)) == [False, True]
    text = schema.to_toml()
    assert "high = 2" in text  # as people write dates
    assert Schema.from_toml(text) == schema


def test_bounds_that_are_no_dates_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'x': high: expected a date32.* such as 2024-12-31, .*'no'"
    ):
        column(DATES, high="no")
    with pytest.raises(ValueError, match="'x': high: expected a number or a date, got True"):
        column(DATES, high=True)
    with pytest.raises(ValueError, match="'x': high: expected a number, got '2020-01-01'"):
        column(NORMAL, high=dt.date(2020, 1, 1))
    with pytest.raises(ValueError, match=r"'x', row \d+: expected date in days to 2020-02-01"):
        column(DATES, high=dt.date(2020, 2, 1))


def test_numbers_still_are_bounds_since_the_origin() -> None:
    assert column(DATES, high=2000, origin=18262).high == 2000


# ---------------------------------------------------------------- names of rows


def people(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": 1000 + np.arange(n),
            "name": [f"person {i}" for i in rng.permutation(n)],
            "height": rng.normal(170, 8, n),
            "town": rng.choice(["Bonn", "Oslo"], n),
            "again": 1000 + np.arange(n),
        }
    )


def left_out(table: Any, **given: Any) -> list[str]:
    schema = Schema.infer(pa.table(table), "error", given)
    return [one.name for one in schema.columns if one.kind == "ignore"]


def test_names_of_rows_are_left_out() -> None:
    table = pa.Table.from_pandas(people(), preserve_index=False)
    schema = Schema.infer(table)
    assert left_out(table) == ["id", "name", "again"]
    assert "left out" in str(schema)
    assert "of which no other column knows anything" in str(schema)
    assert Schema.from_toml(schema.to_toml()) == schema
    shuffled = table.take(np.random.default_rng(0).permutation(len(table))[:200])
    assert left_out(shuffled) == ["id", "name", "again"]
    kept = Schema.infer(table, overrides={"id": {"kind": "integer"}}).columns[0]
    assert kept.kind == "discretised"


@pytest.mark.parametrize(
    "other",
    [
        lambda k, rng: k + rng.normal(0, 100, len(k)),
        lambda k, rng: np.abs(k - k.mean()) + rng.normal(0, 20, len(k)),
        lambda k, rng: np.repeat(rng.normal(size=len(k) // 5), 5),
        lambda k, rng: np.repeat(rng.choice(list("abc"), len(k) // 5), 5),
        lambda k, rng: np.where(rng.random(len(k)) < k / len(k), "a", "b"),
    ],
)
def test_numbers_of_rows_that_another_column_knows_are_kept(other: Any) -> None:
    k = np.arange(500)
    table = {"k": k, "y": other(k, np.random.default_rng(0)), "z": NORMAL[:500]}
    assert left_out(table) == []


def test_numbers_that_merely_differ_are_kept() -> None:
    assert left_out({"x": NORMAL, "y": RNG.permutation(N) / 7}) == []
    wide = RNG.choice(10**9, N, replace=False)
    assert left_out({"x": NORMAL, "y": wide}) == []
    assert left_out({"y": np.arange(N)}) == []  # else nothing were left
    assert left_out({"x": NORMAL[:40], "y": np.arange(40)}) == []


def test_what_is_left_out_is_neither_needed_nor_drawn() -> None:
    table = people()
    estimator = DensityEstimator("gaussian").fit(table)
    scores = estimator.score_samples(table)
    without = table.drop(columns=["id", "name", "again"])
    assert np.array_equal(estimator.score_samples(without), scores)
    other = table.assign(id=None, name="nobody")
    assert np.array_equal(estimator.score_samples(other), scores)
    drawn = estimator.sample(5, random_state=0)
    assert list(drawn.columns) == ["height", "town"]
    assert np.isfinite(estimator.score_samples(drawn)).all()
    residuals = estimator.pit(table)
    assert np.isnan(residuals).all(axis=0).tolist() == [True, True, False, False, True]
    given = DensityEstimator("gaussian").fit(
        without[["height"]], context=table.drop(columns="height")
    )
    assert np.isfinite(given.score_samples(table[["height"]], context=without[["town"]])).all()


def test_arrays_keep_the_places_of_what_is_left_out() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([np.arange(200), rng.integers(0, 9, 200)], axis=1)
    estimator = DensityEstimator("gaussian").fit(x)
    drawn = estimator.sample(4, random_state=0)
    assert drawn.shape == (4, 2)
    assert np.isnan(drawn[:, 0]).all()
    assert np.isfinite(estimator.score_samples(drawn)).all()


def test_gaps_in_what_is_declared_to_be_left_out_do_not_count(tmp_path: Path) -> None:
    table = people().assign(name=lambda x: x["name"].where(x.index % 2 == 0, None))
    for missing in ("error", "drop"):
        known = {"name": {"kind": "ignore"}}
        estimator = DensityEstimator("gaussian", schema=known, missing=missing).fit(table)
        assert np.isfinite(estimator.score_samples(table)).all()
        estimator.save(tmp_path / "x.safetensors")
        again = DensityEstimator.load(tmp_path / "x.safetensors")
        assert np.array_equal(again.score_samples(table), estimator.score_samples(table))


def test_the_command_line_tells_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    people().to_csv("people.csv", index=False)
    found = call(capsys, "schema", "people.csv", "-o", "people.toml")
    assert found[0] == 0
    told = "note: name is left out: 300 texts, all different: they name the rows; "
    assert told in found[1] + found[2]
    train = "train --data people.csv --schema people.toml --flow gaussian --out runs"
    assert run(*train.split()) == 0
    assert run("sample", "runs/people", "-n", 5, "-o", "drawn.csv") == 0
    assert list(pd.read_csv("drawn.csv").columns) == ["height", "town"]
    assert run("score", "runs/people", "people.csv", "-o", "scores.csv", "--keep", "id") == 0
    scores = pd.read_csv("scores.csv")
    assert scores["id"].tolist() == people()["id"].tolist()
    assert np.isfinite(scores["log_prob"]).all()
