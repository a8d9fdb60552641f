"""Samples within the range of the data: where it is obvious, and for all columns on request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import maskedflow as mf
from maskedflow.columns.numeric import guess_numbers

N = 500


def frame() -> pd.DataFrame:
    draws = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": np.clip(draws.normal(40, 18, N), 0, 95).astype(int),
            "x": draws.normal(size=N),
            "small": draws.normal(size=N).astype("float32"),
            "income": np.where(draws.random(N) < 0.3, 0, draws.lognormal(size=N)),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(draws.integers(0, 90, N), "D"),
        }
    )


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        (np.random.default_rng(0).integers(1, 32, 400), (1.0, 31.0)),
        (np.random.default_rng(0).integers(-60, 61, 2000), (-60.0, 60.0)),
        (np.random.default_rng(0).integers(0, 10_000, 2000), (0.0, None)),  # few rows a cell
        (np.round(np.random.default_rng(0).normal(0, 10, 2000)), (None, None)),
    ],
    ids=["days", "below zero", "thin", "normal"],
)
def test_a_full_grid_is_bounded(
    values: np.ndarray, bounds: tuple[float | None, float | None]
) -> None:
    found = guess_numbers(values.astype(float), pa.int64(), missing=False)
    assert found["kind"] == "discretised"
    assert (found.get("low"), found.get("high")) == bounds


def test_every_column_keeps_to_its_range(tmp_path: Path) -> None:
    x = frame()
    estimator = mf.DensityEstimator("gaussian", bounds="data").fit(x)
    estimator.save(tmp_path / "e.safetensors")
    loaded = mf.DensityEstimator.load(tmp_path / "e.safetensors")
    assert loaded.bounds == "data"
    drawn = loaded.sample(5000, random_state=0)
    for name in x:
        outside = (drawn[name] < x[name].min()) | (drawn[name] > x[name].max())
        assert outside.mean() < 1e-3, name
        beyond = x.iloc[:1].assign(**{name: [x[name].max() + (x[name].max() - x[name].min())]})
        assert loaded.score_samples(beyond.astype(x.dtypes)).tolist() == [-np.inf], name
    assert np.isfinite(loaded.score_samples(x)).all()


def test_what_a_schema_says_counts_more() -> None:
    known = {"x": {"low": -50.0, "kind": "bounded"}}
    schema = (
        mf.DensityEstimator("gaussian", bounds="data", schema=known).fit(frame()[["x"]]).schema_
    )
    (column,) = schema.columns
    assert column.low == -50.0
    assert column.high == pytest.approx(frame()["x"].max(), abs=0.1)
    with pytest.raises(ValueError, match=r"^bounds: expected 'inferred' or 'data', got 'all'$"):
        mf.DensityEstimator(bounds="all").fit(frame())
