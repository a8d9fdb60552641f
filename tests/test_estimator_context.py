"""Conditions between, beside and at the edge of those of fit: no density is asked of them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

import maskedflow as mf
from maskedflow.tables import Schema, context_matrix

N = 600


def draws() -> np.random.Generator:
    return np.random.default_rng(0)


def fitted(c: object, y: NDArray[np.float64], **options: str) -> mf.DensityEstimator:
    return mf.DensityEstimator("gaussian", **options).fit(y[:, None], context=c)


@pytest.mark.parametrize(
    ("c", "at"),
    [
        (draws().integers(1, 51, N) * 1.0, (12.5, 0.0, 51.0)),
        (draws().choice([5.0, 10, 20, 40, 80], N), (30.0, 4.0, 90.0)),
        (np.round(draws().normal(170, 10, N), 1), (171.25, 140.0)),
        (draws().exponential(1.0, N), (0.0, -0.5)),
        (draws().beta(0.5, 0.5, N), (0.0, 1.0, 1.2)),
        (np.where(draws().random(N) < 0.2, 0, draws().exponential(1.0, N)), (1e-9, 0.5)),
    ],
    ids=["integers", "doses", "decimals", "waiting times", "shares", "atoms"],
)
def test_numbers_may_be_any(c: NDArray[np.float64], at: tuple[float, ...]) -> None:
    y = c - c.mean() + 0.05 * c.std() * draws().normal(size=N)
    estimator = fitted(c[:, None], y)
    for value in at:
        sampled = estimator.sample(400, random_state=0, context=[[value]])
        assert sampled.mean() == pytest.approx(value - c.mean(), abs=0.15 * c.std())


def test_levels_are_interpolated_and_seen_ones_stay_one_hot() -> None:
    levels = [5.0] * 9 + [10.0] * 9 + [20.0] * 9
    schema = Schema.infer(pa.table({"dose": levels}))
    found = context_matrix(schema, pa.table({"dose": [5.0, 10.0, 20.0, 12.5, 25.0]}))
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.75, 0.25], [0, -0.5, 1.5]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_errors_of_a_context_count_rows_from_where_the_block_starts() -> None:
    schema = Schema.infer(pa.table({"dose": [1.0, 2.5, 4.5] * 9, "unit": ["mg"] * 27}))
    with pytest.raises(ValueError, match="row 102"):
        context_matrix(schema, pa.table({"dose": [3.0, None], "unit": ["mg"] * 2}), start=100)
    with pytest.warns(UserWarning, match="row 101: in fit it was"):
        context_matrix(schema, pa.table({"dose": [3.0], "unit": ["g"]}), start=100)


def test_a_date_may_be_between_and_beyond() -> None:
    day = dt.date(2020, 1, 1)
    days = [day + dt.timedelta(int(k)) for k in draws().integers(0, 100, N)]
    known = pd.DataFrame({"day": pd.to_datetime(days)})
    estimator = fitted(known, draws().normal(size=N))
    later = pd.DataFrame({"day": [pd.Timestamp("2020-06-01 12:00")]})
    assert np.isfinite(estimator.score_samples([[0.0]], context=later)).all()


def test_an_unseen_category_is_named_with_its_column_and_row() -> None:
    kind = draws().choice(["a", "b"], N)
    estimator = fitted(pd.DataFrame({"k": kind, "x": 1.5 * (kind == "a")}), draws().normal(size=N))
    other = pd.DataFrame({"k": ["a", "z"], "x": [0.0, 0.0]})
    wanted = r"^context: column 'k', row 2: expected a category that was there in fit, found 'z'$"
    with pytest.raises(ValueError, match=wanted):
        estimator.score_samples([[0.0], [0.0]], context=other)


def test_what_a_constant_or_a_duplicate_says_is_ignored_with_a_warning() -> None:
    x = draws().normal(size=N)
    estimator = fitted(pd.DataFrame({"x": x, "again": x, "one": 1.0}), x + draws().normal(size=N))
    same = estimator.score_samples(
        [[0.0]], context=pd.DataFrame({"x": [1.0], "again": 1.0, "one": 1.0})
    )
    for name in ("again", "one"):
        other = pd.DataFrame({"x": [1.0], "again": 1.0, "one": 1.0}).assign(**{name: 2.0})
        with pytest.warns(UserWarning, match=rf"context: column '{name}', row 1: .* it is ignored"):
            assert (estimator.score_samples([[0.0]], context=other) == same).all()


def test_what_is_missing_has_an_indicator_far_from_zero(tmp_path: Path) -> None:
    c = 1e9 + draws().normal(size=N)
    y = np.where(draws().random(N) < 0.3, 8.0, c - 1e9) + 0.1 * draws().normal(size=N)
    c[y > 5] = np.nan
    estimator = fitted(c[:, None], y, missing="model")
    estimator.save(tmp_path / "e.safetensors")
    for one in (estimator, mf.DensityEstimator.load(tmp_path / "e.safetensors")):
        assert one.sample(200, random_state=0, context=[[np.nan]]).mean() == pytest.approx(
            8, abs=0.1
        )
        assert one.sample(200, random_state=0, context=[[1e9 + 1]]).mean() == pytest.approx(
            1, abs=0.2
        )


def test_what_is_missing_is_refused_with_advice_or_left_out() -> None:
    c = draws().normal(size=(N, 1))
    c[3] = np.nan
    y = draws().normal(size=N)
    with pytest.raises(
        ValueError, match=r"^context: column '\w+', row 4: missing .* 'drop' or 'model'"
    ):
        fitted(c, y)
    fitted(c, y, missing="drop")
    estimator = fitted(c[4:], y[4:], missing="model")
    with pytest.raises(ValueError, match=r"row 1: missing, as in no row of fit; fill it in$"):
        estimator.score_samples([[0.0]], context=[[np.nan]])
