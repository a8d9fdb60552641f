"""The scikit-learn face of table densities."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from maskedflow import DensityEstimator


@parametrize_with_checks([DensityEstimator(time_limit=2.0)])
def test_scikit_learn_accepts_it(estimator: Any, check: Any) -> None:
    check(estimator)


def mixed(n: int = 600) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    income = np.exp(rng.normal(size=n))
    income[rng.random(n) < 0.2] = 0.0
    height = rng.normal(170, 10, n)
    height[rng.random(n) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "income": income,
            "height": height,
            "wind": rng.uniform(0, 360, n),
            "visits": rng.integers(0, 500, n),
            "city": rng.choice(["Bonn", "Rome", "Oslo"], n),
            "member": rng.random(n) < 0.5,
            "born": pd.Timestamp("1990-01-01") + pd.to_timedelta(rng.integers(0, 9000, n), "D"),
            "unit": "cm",
        }
    )


ANGLE = {"wind": {"kind": "angle", "period": 360}}


def test_a_table_of_all_kinds_of_columns_goes_there_and_back() -> None:
    table = mixed()
    estimator = DensityEstimator("gaussian", schema=ANGLE, missing="model", time_limit=3)
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
    assert np.allclose(again.score_samples(table), scores, rtol=0, atol=1e-10)


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
    grid = GridSearchCV(DensityEstimator(time_limit=1), {"flow": ["gaussian", "auto"]}, cv=2)
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
