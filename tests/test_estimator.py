"""The scikit-learn face of table densities."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from maskedflow import DensityEstimator
from maskedflow.tables import Schema, from_arrow, to_rows, to_table
from maskedflow.training import save
from mixed_tables import ANGLE, mixed
from table_strategies import tables


@parametrize_with_checks([DensityEstimator(work=0.5)])
def test_scikit_learn_accepts_it(estimator: Any, check: Any) -> None:
    check(estimator)


def test_a_table_of_all_kinds_of_columns_goes_there_and_back() -> None:
    table = mixed()
    estimator = DensityEstimator("gaussian", schema=ANGLE, missing="model", work=1)
    scores = estimator.fit(table).score_samples(table)
    assert np.isfinite(scores).all()
    order = np.random.default_rng(1).permutation(len(table))
    assert np.array_equal(estimator.score_samples(table.iloc[order]), scores[order])
    assert np.array_equal(estimator.score_samples(table.iloc[:7]), scores[:7])
    drawn = estimator.sample(200, random_state=0)
    assert list(drawn.columns) == list(table.columns)
    assert set(drawn["city"]) <= {"Bonn", "Rome", "Oslo"}
    assert (drawn["unit"] == "cm").all()
    assert drawn["visits"].dtype.kind == "i"
    assert drawn["wind"].between(0, 360).all()
    assert 0.05 < (drawn["income"] == 0).mean() < 0.4
    assert 0.02 < drawn["height"].isna().mean() < 0.25
    assert np.isfinite(estimator.score_samples(drawn)).mean() > 0.95
    strange = table.iloc[:1].assign(city="Paris")
    assert estimator.score_samples(strange)[0] == -np.inf
    again = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(again.score_samples(table), scores)


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame, pl.DataFrame, pa.table])
def test_samples_come_back_in_kind(kind: Any) -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    given = x if kind is np.asarray else kind({"a": x[:, 0], "b": x[:, 1]})
    drawn = DensityEstimator("gaussian").fit(given).sample(5, random_state=0)
    assert type(drawn) is type(given)
    assert drawn.shape == (5, 2)


def test_it_works_in_pipelines_and_searches() -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    pipeline = make_pipeline(StandardScaler(), DensityEstimator("gaussian"))
    assert np.isfinite(cross_val_score(pipeline, x, cv=3)).all()
    grid = GridSearchCV(DensityEstimator(work=0.5), {"flow": ["gaussian", "auto"]}, cv=2)
    assert grid.fit(x).best_params_["flow"] in ("gaussian", "auto")


def test_a_density_given_a_context_follows_it() -> None:
    rng = np.random.default_rng(0)
    context = pd.DataFrame({"group": rng.choice(["a", "b"], 400), "t": rng.normal(size=400)})
    x = np.where(context["group"] == "a", -5.0, 5.0) + context["t"] + 0.1 * rng.normal(size=400)
    estimator = DensityEstimator("gaussian").fit(x.to_numpy()[:, None], context=context)
    alone = DensityEstimator("gaussian").fit(x.to_numpy()[:, None])
    assert (
        estimator.score(x.to_numpy()[:, None], context=context)
        > alone.score(x.to_numpy()[:, None]) + 2
    )
    where = pd.DataFrame({"group": ["a", "b"], "t": [0.0, 1.0]})
    drawn = estimator.sample(200, random_state=0, context=where)
    assert np.allclose([drawn[:200].mean(), drawn[200:].mean()], [-5, 6], atol=0.1)
    with pytest.raises(ValueError, match="context: got none"):
        estimator.score_samples(x.to_numpy()[:, None])


def test_missing_values_are_refused_or_dropped() -> None:
    table = pd.DataFrame({"a": [1.0, np.nan, 2.5, 4.0], "b": [0.0, 1.0, 2.5, 1.5]})
    with pytest.raises(ValueError, match="column 'a', row 2: missing"):
        DensityEstimator().fit(table)
    dropped = DensityEstimator("gaussian", missing="drop").fit(table)
    assert dropped.n_features_in_ == 2


@settings(max_examples=4, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.data(), st.booleans())
def test_every_kind_of_column_is_fitted_drawn_and_saved(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, missing: bool
) -> None:
    table, known = data.draw(tables(missing))
    known = {name: known[name] for name in known if name in table.column_names}
    estimator = DensityEstimator(
        "gaussian", schema=known, missing="model" if missing else "error", work=0.5
    )
    scores = estimator.fit(table).score_samples(table)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    order = np.random.default_rng(0).permutation(len(scores))
    assert np.array_equal(estimator.score_samples(table.take(order)), scores[order])
    assert np.array_equal(
        estimator.score_samples(table.slice(len(scores) // 2)), scores[len(scores) // 2 :]
    )
    drawn = estimator.sample(20, random_state=1)
    assert drawn.schema == table.schema
    path = tmp_path_factory.mktemp("saved") / "deeper" / "table.safetensors"
    estimator.save(path)
    again = DensityEstimator.load(path)
    assert again.schema_ == estimator.schema_
    assert np.array_equal(again.score_samples(table), scores)
    assert again.sample(20, random_state=1).equals(drawn)


@pytest.mark.parametrize("kind", ["numpy", "pandas", "polars", "arrow"])
def test_a_file_keeps_parameters_names_context_and_kind(tmp_path: Path, kind: Any) -> None:
    rng = np.random.default_rng(0)
    table = from_arrow(pa.table({"a": rng.normal(size=60), "b": rng.normal(size=60)}), kind)
    context = pa.table({"g": rng.choice(["u", "v"], 60), "t": rng.normal(size=60)})
    given = DensityEstimator("gaussian", missing="drop", time_limit=7, work=1, random_state=3)
    given.fit(table, context=context).save(tmp_path / "e.safetensors")
    again = DensityEstimator.load(str(tmp_path / "e.safetensors"))
    assert again.work_ == given.work_
    assert again.get_params() == given.get_params()
    assert again.n_features_in_ == 2
    assert hasattr(again, "feature_names_in_") == hasattr(given, "feature_names_in_")
    wanted = given.score_samples(table, context=context)
    assert np.array_equal(again.score_samples(table, context=context), wanted)
    drawn = [one.sample(2, random_state=0, context=context) for one in (given, again)]
    assert type(drawn[1]) is type(table)
    assert len(drawn[1]) == 120
    assert np.array_equal(np.asarray(drawn[0]), np.asarray(drawn[1]))
    assert [path.name for path in tmp_path.iterdir()] == ["e.safetensors"]


def test_a_loaded_estimator_is_fitted_again_by_the_same_schema(tmp_path: Path) -> None:
    table = mixed(60).drop(columns="height")
    first = DensityEstimator("gaussian", schema=ANGLE, work=1).fit(table)
    first.save(tmp_path / "e.safetensors")
    again = clone(DensityEstimator.load(tmp_path / "e.safetensors"))
    assert again.fit(table).schema_ == first.schema_


def test_what_is_no_estimator_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    with pytest.raises(NotFittedError):
        DensityEstimator().save(path)
    with pytest.raises(FileNotFoundError):
        DensityEstimator.load(path)
    fitted = DensityEstimator("gaussian").fit(np.random.default_rng(0).normal(size=(50, 2)))
    fitted.save(path)
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    for end in (0, 5, 8, 8 + size // 2, 8 + size, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="truncated") as error:
            DensityEstimator.load(path)
        assert "\n" not in str(error.value)
    path.write_bytes(pickle.dumps({"a": 1}) * 10)
    with pytest.raises(ValueError, match="not a safetensors file"):
        DensityEstimator.load(path)
    save_file({"a": fitted.density_.places}, path)
    with pytest.raises(ValueError, match="not written by maskedflow"):
        DensityEstimator.load(path)
    save(path, fitted.density_, {"estimator": {"schema": "columns = 3"}})
    with pytest.raises(ValueError, match="expected a saved DensityEstimator"):
        DensityEstimator.load(path)
    save(path, fitted.density_, {"columns": ["a"]})
    with pytest.raises(ValueError, match="expected a saved DensityEstimator"):
        DensityEstimator.load(path)
    header = json.loads(whole[8 : 8 + size])
    told = json.loads(header["__metadata__"]["maskedflow"])["estimator"]
    told["plan"]["members"][0]["components"] = 3
    save(path, fitted.density_, {"estimator": told})
    with pytest.raises(ValueError, match="which the flow does not have"):
        DensityEstimator.load(path)


@pytest.mark.parametrize("flow", ["gaussian", "auto"])
def test_whole_weights_repeat_rows_and_zeros_drop_them(flow: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)) @ rng.normal(size=(3, 3))
    weight = rng.integers(0, 4, 80)
    before = weight.copy()
    weighted = DensityEstimator(flow, work=100).fit(x, sample_weight=weight)
    repeated = DensityEstimator(flow, work=100).fit(x.repeat(weight, axis=0))
    assert np.array_equal(weighted.score_samples(x), repeated.score_samples(x))
    assert np.array_equal(weight, before)


def test_a_number_whose_square_is_infinite_is_refused() -> None:
    table = pd.DataFrame({"a": np.arange(9.0), "b": [1.5, 2.5, 1e200, *np.arange(6)]})
    with pytest.raises(
        ValueError, match=r"column 'b', row 3: expected numbers less than 1e\+150 apart"
    ):
        DensityEstimator("gaussian").fit(table)


def test_an_error_counts_rows_that_are_left_out() -> None:
    x = np.random.default_rng(0).normal(size=(20, 2))
    x[[0, 15], 0] = np.nan
    weight = np.r_[np.zeros(3), np.ones(17)]
    with pytest.raises(ValueError, match=r"^column 'x0', row 16: missing \(1 of 17 values are\)"):
        DensityEstimator("gaussian").fit(x, sample_weight=weight)
    x[17, 1] = np.inf
    dropping = DensityEstimator("gaussian", missing="drop")
    with pytest.raises(ValueError, match=r"^column 'x1', row 18: expected a finite number"):
        dropping.fit(x)
    given = pd.DataFrame({"it's": x[:, 1]})
    with pytest.raises(ValueError, match=r'^context: column "it\'s", row 18: expected a finite'):
        dropping.fit(x[:, :1], context=given)


def test_weights_say_how_much_a_row_counts() -> None:
    x = np.random.default_rng(0).normal(size=(4000, 1))
    weight = np.exp(x[:, 0])  # tilts N(0, 1) to N(1, 1)
    drawn = DensityEstimator("gaussian").fit(x, sample_weight=weight).sample(4000, random_state=0)
    assert abs(drawn.mean() - 1) < 0.15
    assert abs(drawn.std() - 1) < 0.15
    with pytest.raises(ValueError, match="at least one non-zero"):
        DensityEstimator().fit(x, sample_weight=np.zeros(4000))


def test_a_score_is_in_the_units_of_the_columns() -> None:
    """Metres to centimetres: log 100 nats less for each column; and a Gaussian's own density."""
    x = np.random.default_rng(0).normal(size=(5000, 2)) * [1, 3]
    metres = DensityEstimator("gaussian").fit(x).score_samples(x)
    centimetres = DensityEstimator("gaussian").fit(100 * x).score_samples(100 * x)
    assert np.allclose(metres - centimetres, 2 * np.log(100), atol=1e-6)
    entropy = np.log(2 * np.pi * np.e) + np.log(3)
    assert abs(metres.mean() + entropy) < 0.05


@pytest.mark.parametrize("dtype", [np.float32, np.float64, object])
def test_arrays_of_any_dtype_are_numbers(dtype: Any) -> None:
    x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32).astype(dtype)
    estimator = DensityEstimator("gaussian").fit(x)
    scores = estimator.score_samples(x)
    assert scores.dtype == np.float64
    assert np.allclose(scores, estimator.score_samples(x.astype(np.float64)))
    assert estimator.sample(2, random_state=0).dtype == (np.float64 if dtype is object else dtype)


def test_columns_go_by_name_and_of_an_array_by_place() -> None:
    table = mixed(80)[["income", "visits"]]
    estimator = DensityEstimator("gaussian", work=1).fit(table)
    scores = estimator.score_samples(table)
    assert np.array_equal(estimator.score_samples(table[["visits", "income"]]), scores)
    with pytest.warns(UserWarning, match="feature names"):
        assert np.array_equal(estimator.score_samples(table.to_numpy()), scores)
    with pytest.raises(ValueError, match="no column 'visits'"):
        estimator.score_samples(table[["income"]])


@pytest.mark.parametrize("told", ["file", "schema", "parameter"])
def test_a_schema_says_what_becomes_of_missing_values(tmp_path: Path, told: str) -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[::4, 0] = np.nan
    path = tmp_path / "schema.toml"
    path.write_text('missing = "model"\n[columns.x1]\nkind = "continuous"\n')
    known = pa.table({"x0": x[1:4, 0], "x1": x[1:4, 1]})
    for missing in ("model", "drop"):
        path.write_text(path.read_text().replace("model", missing))
        estimator = {
            "file": DensityEstimator("gaussian", schema=path),
            "schema": DensityEstimator("gaussian", schema=Schema.infer(known, missing)),
            "parameter": DensityEstimator("gaussian", missing=missing),
        }[told]
        if (told, missing) == ("schema", "model"):
            continue  # none was missing in the three rows, so that none may be
        estimator.fit(x)
        assert estimator.schema_.missing == missing
        assert np.isfinite(estimator.score_samples(x[1:4])).all()
    with pytest.raises(ValueError, match="missing: expected"):
        DensityEstimator(missing="ignore").fit(x)


def test_constant_columns_and_contexts_say_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(50, 1))
    alone = DensityEstimator("gaussian").fit(x)
    same = pa.table({"a": ["u"] * 50, "b": [1.0] * 50})
    given = DensityEstimator("gaussian").fit(x, context=same)
    assert np.array_equal(given.score_samples(x, context=same), alone.score_samples(x))
    assert given.sample(3, context=same.slice(0, 2)).shape == (6, 1)
    fixed = DensityEstimator().fit(same)
    assert (fixed.score_samples(same) == 0).all()
    assert fixed.sample(2).equals(same.slice(0, 2))


def test_parameters_are_kept_as_they_are_given() -> None:
    given = DensityEstimator("maf", schema=ANGLE, missing="model", time_limit=3, random_state=7)
    assert clone(given).get_params() == given.get_params()
    with pytest.raises(ValueError, match="flow: expected one of"):
        DensityEstimator("glow").fit(np.zeros((5, 1)) + np.arange(5)[:, None])
    with pytest.raises(ValueError, match="n_samples"):
        DensityEstimator("gaussian").fit(np.random.default_rng(0).normal(size=(9, 1))).sample(0)


def test_draws_from_far_away_are_told_as_far_as_their_types_go() -> None:
    kinds: dict[str, pa.DataType] = {
        "cents": pa.decimal128(4, 2),
        "many": pa.decimal128(38, 0),
        "single": pa.float32(),
        "day": pa.date32(),
        "milliseconds": pa.date64(),
        "nanoseconds": pa.timestamp("ns"),
        "second": pa.timestamp("s", "UTC"),
    }
    steps = np.arange(-40, 40)
    cells = {
        "cents": [Decimal(int(k)) / 100 for k in steps],
        "many": steps,
        "single": np.sqrt(np.arange(80.0)),
    }
    days = pa.array(steps.astype(np.int32)).cast(pa.date32())
    table = pa.table(
        {
            name: (pa.array(cells[name]) if name in cells else days).cast(kind)
            for name, kind in kinds.items()
        }
    )
    schema = Schema.infer(
        table, overrides={name: {"kind": "discretised"} for name in ("cents", "many")}
    )
    rows = to_rows(schema, table)
    for far in (-1e100, 1e100):
        told = to_table(schema, replace(rows, values=torch.full_like(rows.values, far)))
        assert told.schema.equals(table.schema)
        assert told.num_rows == len(told.slice(0, 80).to_pylist())  # Python's calendar has them
        assert np.isfinite(told["single"].to_numpy()).all()
        assert abs(told["cents"][0].as_py()) == Decimal("99.99")
